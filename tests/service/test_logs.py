"""Log lines: one shape, on stderr, and nothing in them that should not leave the process."""

import json
import subprocess
import sys

import pytest

FAULT = """
import logging, structlog
from service import logs
logs.configure({form!r})
log = structlog.get_logger()
structlog.contextvars.bind_contextvars(request_id="r1")
log.debug("not worth a line")
log.info("started", port=1)
logging.getLogger("library").warning("from %s", "afar")
logging.getLogger("library").info("not worth a line")
def fails(body):
    url = "redis://:hunter2@host"
    raise ValueError("broken")
try:
    fails("the user's data")
except ValueError:
    log.exception("unexpected")
"""


def run(form: str) -> str:
    done = subprocess.run([sys.executable, "-c", FAULT.format(form=form)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_where_and_not_with_what(form: str) -> None:
    lines = run(form)
    assert "ValueError" in lines
    assert "fails" in lines
    assert "hunter2" not in lines
    assert "user's data" not in lines


def test_json_lines_are_objects_of_one_shape() -> None:
    started, library, fault = (json.loads(line) for line in run("json").splitlines())
    assert (started["event"], started["port"], started["level"]) == ("started", 1, "info")
    assert (library["event"], library["level"]) == ("from afar", "warning")
    assert fault["exception"][0]["exc_type"] == "ValueError"
    for line in (started, library, fault):
        assert line["request_id"] == "r1"
        assert line["timestamp"].endswith("Z")


def test_lines_for_people_have_no_colours_in_a_file() -> None:
    first = run("console").splitlines()[0]
    assert "started" in first
    assert "\x1b" not in first
