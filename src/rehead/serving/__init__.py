"""A bundle behind HTTP: `make_app` in app.py gives the service, server.py runs it."""
