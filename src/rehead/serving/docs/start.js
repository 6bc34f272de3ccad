"use strict";
// Draws what /openapi.json describes. A file of its own, since the page's policy allows no script inside HTML.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#asked",
  deepLinking: true,
  validatorUrl: null, // else it asks another host whether the description is valid
  presets: [SwaggerUIBundle.presets.apis],
});
