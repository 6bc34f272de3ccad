"""Bad input through HTTP: every refusal has its status, its words and its request's identity, and the service goes on."""

from __future__ import annotations

import contextlib
import functools
import io
import socket
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from little import bundle, heavy, picture
from PIL import Image
from served import BOUNDARY, Answer, Here, form, here

from rehead.serving.limits import Limits

SMALL = Limits(
    body_bytes=1 << 20, images=8, header_s=3.0, body_s=4.0, body_idle_s=3.0, linger_s=10.0, request_s=20.0, queue=12
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("refusing") / "bundle")


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Here]:
    with here({"little": folder}, limits=SMALL) as running:
        yield running
        assert running.predict(picture()).status == 200  # after all of that
        assert running.service.room.held_bytes == 0
        assert running.service.crew.n_waiting == 0
        assert not [line for line in running.said if line["event"] in ("failed", "server")]


def refused(answer: Answer, status: int, *words: str) -> None:
    assert answer.status == status, answer.body
    said = answer.json
    assert said["request_id"] == answer.headers["x-request-id"]
    text = " ".join(said["error"].values())
    for word in words:
        assert word in text


def test_an_empty_body(service: Here) -> None:
    refused(service.predict(b""), 400, "is empty", "images")
    refused(service.predict_form([]), 400, "no pictures")
    assert service.predict_form([("a", b"")]).json["results"] == [{"name": "a", "error": "is empty (0 bytes)"}]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/json", "", "multipart/form-data", "image", "no/such; x=\x7f"]
)
def test_another_content_type(service: Here, kind: str) -> None:
    refused(service.predict(picture(), Content_Type=kind), 415, "multipart/form-data", "image/*")


def test_a_form_without_a_boundary_is_told_what_it_lacks(service: Here) -> None:
    refused(service.predict(picture(), Content_Type="multipart/form-data"), 415, "no boundary")


def test_more_pixels_than_the_service_takes_are_refused_before_they_are_decoded(folder: Path) -> None:
    with here({"little": folder}, limits=Limits(pixels=32 * 32)) as running:
        assert running.service.models()["limits"]["pixels"] == 32 * 32
        assert running.predict(picture(size=32)).status == 200
        answer = running.predict(picture(size=33)[:-20])  # its end is gone: to decode it would say so
        assert answer.status == 422
        assert "33 x 33 pixels" in answer.json["detail"]


@pytest.mark.parametrize("path", ["/", "/page.js", "/docs", "/healthz", "/readyz", "/metrics", "/v1/model"])
def test_who_asks_for_the_head_alone_gets_what_stands_above_the_answer(service: Here, path: str) -> None:
    head, whole = service.ask("HEAD", path), service.get(path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    refused(service.ask("DELETE", path), 405)


def test_a_form_that_is_none(service: Here) -> None:
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    whole = form([("a", picture())])
    for body in (
        b"nonsense",
        whole[:-6],
        whole[: len(whole) // 2],
        b"--" + BOUNDARY.encode() + b"\r\n\r\n",
        b"\0" * 1000,
    ):
        refused(service.ask("POST", "/v1/predict", body, Content_Type=kind), 400, "form")
    other = form([("a", picture())], field="file")
    refused(service.ask("POST", "/v1/predict", other, Content_Type=kind), 422, "'file'", "'images'")
    headers = b"--" + BOUNDARY.encode() + b"\r\n" + b"X: y\r\n" * 1000 + b"\r\n\r\n"
    refused(service.ask("POST", "/v1/predict", headers, Content_Type=kind), 400)
    refused(service.ask("POST", "/v1/predict", whole, Content_Type=f"{kind}{'x' * 5000}"), 400)


def test_too_many_pictures(service: Here) -> None:
    assert len(service.predict_form([(str(i), picture()) for i in range(8)]).json["results"]) == 8
    refused(
        service.predict_form([(str(i), b"x") for i in range(1000)]), 413, "more than 8 pictures", "several requests"
    )


def test_a_body_that_says_it_is_too_large_is_not_waited_for(service: Here) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as line:
        line.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 200000000\r\n\r\n"
        )
        assert line.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_say_how_large_it_is_is_refused_when_it_is_too_large(service: Here) -> None:
    sent = []

    def endless() -> Iterator[bytes]:
        for _ in range(200):
            sent.append(1)
            yield bytes(1 << 20)

    refused(service.ask("POST", "/v1/predict", endless(), Content_Type="image/png"), 413, "1 MiB")
    assert sum(sent) == 200  # it was let finish, thrown away, so that it sees why


def test_the_memory_of_200_megabytes_that_are_refused_is_not_taken(service: Here) -> None:
    highest = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            highest.append(service.service.room.held_bytes)

    thread = threading.Thread(target=watch, name="rehead-test")
    thread.start()
    try:
        answer = service.ask("POST", "/v1/predict", iter([bytes(1 << 20)] * 200), Content_Type="image/png")
    finally:
        stop.set()
        thread.join()
    assert answer.status == 413
    assert max(highest) <= SMALL.body_bytes


def test_who_asks_first_whether_to_send_is_told_no(service: Here) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as line:
        line.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 99\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert line.recv(1000).startswith(b"HTTP/1.1 415 ")


def test_bad_parameters(service: Here) -> None:
    for query in ("?top=0", "?top=x", "?top=99999999", "?nearest=-1", "?nearest=1000", "?explain=perhaps"):
        refused(service.predict(picture(), query), 422, query[1:].partition("=")[0])
    refused(service.predict(picture(), "?model=litle"), 404, "'litle'", "little", "Did you mean")
    refused(service.get("/v1/predict"), 405)
    refused(service.get("/v2/predict"), 404)
    refused(service.ask("DELETE", "/v1/model"), 405)


@functools.cache
def bombs() -> dict[str, bytes]:
    """Files that are small and become huge, or claim to."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    huge = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100 << 20), 9))
    small = struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100 << 20), 9))
    start = b"\x89PNG\r\n\x1a\n"
    return {
        "pixels": start + chunk(b"IHDR", huge) + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b""),
        "text": start + chunk(b"IHDR", small) + text + chunk(b"IDAT", zlib.compress(bytes(52))) + chunk(b"IEND", b""),
        "profile": start
        + chunk(b"IHDR", small)
        + profile
        + chunk(b"IDAT", zlib.compress(bytes(52)))
        + chunk(b"IEND", b""),
        "claims": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0),
    }


@pytest.mark.parametrize("name", ["pixels", "text", "profile", "claims"])
def test_bombs(service: Here, name: str) -> None:
    answer = service.predict(bombs()[name])
    assert answer.status in (200, 422)  # a profile that is not applied may be huge
    if name in ("pixels", "claims"):
        assert "bomb" in answer.json["detail"]
    assert ("error" in answer.json["results"][0]) == (answer.status == 422)


def test_truncated_pictures_at_every_length(service: Here) -> None:
    for form_ in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        whole = picture(form=form_)
        for n in range(1, len(whole), max(1, len(whole) // 12)):
            answer = service.predict(whole[:n])
            assert answer.status in (200, 422)
            assert (answer.status == 422) == ("error" in answer.json["results"][0])


def test_hostile_exif_and_profiles(service: Here) -> None:
    good = service.predict(picture(form="JPEG")).json["results"][0]["label"]
    loop = (
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x08"  # a directory that leads to itself
    )
    tags = [
        b"Exif\0\0" + bytes(60_000),
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        loop,
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 600,
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged EXIF
        for exif in tags:
            answer = service.predict(picture(form="JPEG", exif=exif))
            assert answer.status in (200, 422)
            assert answer.status == 422 or answer.json["results"][0]["label"] == good
        for profile in (b"\0" * 60_000, b"\xff" * 128, b"acsp" * 1000):
            answer = service.predict(picture(form="JPEG", icc_profile=profile))
            assert (answer.status, answer.json["results"][0]["label"]) == (200, good)


def test_a_bad_picture_among_others_has_its_reason(service: Here) -> None:
    said = service.predict_form([("a", picture()), ("b", b"text"), ("c", picture((60, 60, 200)))])
    assert said.status == 200
    assert [row.get("label") for row in said.json["results"]] == ["red", None, "blue"]
    assert said.json["results"][1] == {"name": "b", "error": "is not an image that can be read"}


def test_where_all_are_bad_the_status_says_so(service: Here) -> None:
    many = service.predict_form([("a", b"text"), ("b", b"text")])
    assert (many.status, [row["name"] for row in many.json["results"]]) == (422, ["a", "b"])
    alone = service.predict(b"text")
    assert (alone.status, alone.json["detail"]) == (422, alone.json["results"][0]["error"])


@pytest.mark.long
def test_a_client_whose_body_never_ends_is_told_and_closed(service: Here) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
        begun = time.monotonic()
        line.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\nabc"
        )
        said = everything(line)
        assert said.startswith(b"HTTP/1.1 408 ")
        assert b"did not come in time" in said
        assert 2.9 < time.monotonic() - begun < 20


@pytest.mark.long
def test_a_client_that_drips_is_cut_off_in_the_end(service: Here) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
        begun, said = time.monotonic(), b""
        line.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\n"
        )
        line.settimeout(0.2)
        while not said and time.monotonic() - begun < 20:
            line.sendall(b"a")
            try:
                said = line.recv(10_000)
            except TimeoutError:
                continue
        assert said.startswith(b"HTTP/1.1 408 ")
        assert 3.9 < time.monotonic() - begun < 20


@pytest.mark.long
def test_a_client_whose_headers_do_not_end_is_closed(service: Here) -> None:
    with contextlib.ExitStack() as stack:
        starts = (b"", b"GET / HTTP/1.1\r\nHost: loc", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT")
        lines = [stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=10)) for _ in starts]
        for line, start in zip(lines, starts, strict=True):
            line.sendall(start)
        for line, n_answers in zip(lines, (0, 0, 1), strict=True):
            assert everything(line).count(b"HTTP/1.1 200") == n_answers


def everything(line: socket.socket) -> bytes:
    """What comes until the other side closes."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := line.recv(10_000):
            said += piece
    return said


def test_beyond_so_many_connections_it_says_no(folder: Path) -> None:
    with here({"little": folder}, limits=Limits(connections=3)) as running, contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port)))
        wait_until(lambda: running.get("/healthz").status == 503)
        stack.close()
        wait_until(lambda: running.get("/healthz").status == 200)


def test_what_a_client_that_went_away_asked_for_is_dropped(service: Here) -> None:
    crew, before = service.service.crew, len(service.said)
    body = form([(str(i), heavy(25)) for i in range(4)])
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
    asked = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as patient:
        patient.sendall(asked)
        wait_until(lambda: crew.n_waiting == 0 and service.service.room.held_bytes > 0)  # it is under way
        with socket.create_connection(("127.0.0.1", service.port), timeout=10) as hasty:
            hasty.sendall(asked)
            wait_until(lambda: crew.n_waiting == 4)
        wait_until(lambda: crew.n_waiting == 0)
        assert patient.recv(100).startswith(b"HTTP/1.1 200 ")
        wait_until(lambda: len(service.said) == before + 2)
        assert sorted(line["status"] for line in service.said[before:]) == [200, 499]  # whoever is written down first


def test_beyond_the_queue_nobody_waits(folder: Path) -> None:
    slow = [(str(i), heavy(16)) for i in range(4)]
    with here({"little": folder}, limits=Limits(queue=5)) as running, ThreadPoolExecutor(6, "rehead-test") as pool:
        answers = list(pool.map(lambda _: running.predict_form(slow), range(6)))
        assert running.predict_form([(str(i), b"x") for i in range(6)]).status == 503  # more than it ever holds
    refusals = [answer for answer in answers if answer.status == 503]
    assert 0 < len(refusals) < 6
    for answer in refusals:
        refused(answer, 503, "wait already", "later")
        assert int(answer.headers["retry-after"]) >= 1
    assert all(len(answer.json["results"]) == 4 for answer in answers if answer.status == 200)


def test_all_bodies_together_have_a_bound(folder: Path) -> None:
    with here({"little": folder}, limits=Limits(held_bytes=20_000)) as running:
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as line:
            line.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 19900\r\n\r\n"
                + bytes(15_000)
            )
            wait_until(lambda: running.service.room.held_bytes >= 15_000)
            refused(running.predict(picture(size=50, form="BMP")), 503, "memory")
        wait_until(lambda: running.service.room.held_bytes == 0)
        assert running.predict(picture(size=50, form="BMP")).status == 200


def test_what_a_client_only_claims_to_send_takes_no_room(folder: Path) -> None:
    with here({"little": folder}, limits=Limits(held_bytes=20_000)) as running, contextlib.ExitStack() as stack:
        for _ in range(3):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=10))
            line.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 19900\r\n\r\na"
            )
        wait_until(lambda: running.service.room.held_bytes == 3)
        assert running.predict(picture()).status == 200


def test_a_request_that_takes_too_long(folder: Path) -> None:
    with here({"little": folder}, limits=Limits(request_s=0.3)) as running:
        refused(running.predict_form([(str(i), heavy(16)) for i in range(9)]), 504, "within 0.3 s")
        wait_until(lambda: running.service.crew.n_waiting == 0)
        wait_until(lambda: running.predict(picture()).status == 200)


def test_a_stream_of_frames_and_colours_that_few_know(service: Here) -> None:
    with io.BytesIO() as file:
        frames = [Image.new("L", (8, 8), shade) for shade in range(60)]
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
        assert service.predict(file.getvalue()).status == 200
    with io.BytesIO() as file:
        Image.new("CMYK", (8, 8), (0, 200, 200, 0)).save(file, "JPEG")
        assert service.predict(file.getvalue()).json["results"][0]["label"] == "red"


def wait_until(true, timeout_s: float = 10) -> None:  # type: ignore[no-untyped-def]
    ends = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.005)
