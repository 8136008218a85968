"""The HTTP side of the endpoint: GET /ping says ready, POST /invocations predicts."""

import json
from http import HTTPStatus

from predict import InvalidRequest, predict


def app(environ, start_response):
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    if path == "/ping":
        return answer(start_response, HTTPStatus.OK, {"status": "ready"})
    if path != "/invocations":
        return answer(start_response, HTTPStatus.NOT_FOUND, {"error": "there are /ping and /invocations"})
    if method != "POST":
        return answer(start_response, HTTPStatus.METHOD_NOT_ALLOWED, {"error": "send a POST"})
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    try:
        return answer(start_response, HTTPStatus.OK, predict(body))
    except InvalidRequest as error:
        return answer(start_response, HTTPStatus.BAD_REQUEST, {"error": str(error)})


def answer(start_response, status, document):
    body = json.dumps(document).encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response(f"{status.value} {status.phrase}", headers)
    return [body]
