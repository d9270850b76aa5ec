"""TF Serving's REST routes as a Starlette application."""

import asyncio
import dataclasses
import json
import logging
import re
import time
import urllib.parse
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from keras_llm.serving import metrics, strict_json
from keras_llm.serving.bodies import ByteBudget, Share, read_body
from keras_llm.serving.errors import Code, RequestError
from keras_llm.serving.model import Model
from keras_llm.serving.replies import predict_reply
from keras_llm.serving.tensors import DEFAULT_SIGNATURE, Limits, PredictRequest
from keras_llm.serving.versions import Versions
from keras_llm.serving.workers import Job, WorkerPool

_log = logging.getLogger(__name__)
_MODEL = (
    r"/v1/models/(?P<name>[^/:]+)"
    r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
)
_POST = re.compile(
    rf"{_MODEL}:(?P<verb>classify|regress|predict)", re.IGNORECASE | re.ASCII
)
_GET = re.compile(rf"{_MODEL}(?P<metadata>/metadata)?", re.IGNORECASE | re.ASCII)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# A larger body is parsed in a thread, so that others need not wait for it.
_PARSED_AT_ONCE = 32 * 2**10


@dataclasses.dataclass(frozen=True)
class ApiLimits:
    """What one request may cost. Bytes are of the body, seconds of everything."""

    timeout_seconds: float
    body_bytes: int
    request: Limits = Limits()


class RestApi:
    """Answers requests for one model.

    Args:
        model_name: The name in the routes.
        versions: Where the model to ask is found.
        workers: The threads that run it.
        budget: For the bodies of all requests together.
        limits: For each request.
    """

    def __init__(
        self,
        model_name: str,
        versions: Versions,
        workers: WorkerPool,
        budget: ByteBudget,
        limits: ApiLimits,
    ):
        self._name = model_name
        self._versions = versions
        self._workers = workers
        self._budget = budget
        self._limits = limits
        self._metrics = metrics.Metrics(model_name)
        self.draining = False

    def app(self) -> Starlette:
        """Returns the ASGI application."""
        return Starlette(
            routes=[
                Route("/livez", self._live),
                Route("/readyz", self._ready),
                Route("/monitoring/prometheus/metrics", self._figures),
                Route("/{path:path}", self._answer, methods=_METHODS),
            ],
            exception_handlers={
                RequestError: _refused,
                HTTPException: _not_http,
                Exception: _failed,
            },
        )

    async def _live(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _ready(self, request: Request) -> Response:
        ready = not self.draining and self._versions.current is not None
        return PlainTextResponse(
            "ok\n" if ready else "not ready\n", 200 if ready else 503
        )

    async def _figures(self, request: Request) -> Response:
        return PlainTextResponse(self._metrics.text(), media_type=metrics.CONTENT_TYPE)

    async def _answer(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode("ascii", "replace")
        if query := request.scope["query_string"]:
            path = f"{path}?{query.decode('ascii', 'replace')}"
        if request.method == "POST" and (found := _POST.fullmatch(path)):
            return await self._post(request, found)
        if request.method == "GET" and (found := _GET.fullmatch(path)):
            return self._get(found)
        raise RequestError(f"Malformed request: {request.method} {path[:200]}")

    def _get(self, found: re.Match[str]) -> Response:
        if found["metadata"]:
            model = self._find(found)
            spec = {
                "name": self._name,
                "signature_name": "",
                "version": str(model.version),
            }
            signatures = {"signature_def": model.metadata()}
            return _json(
                {"model_spec": spec, "metadata": {"signature_def": signatures}}
            )
        version = _version(found)
        _check_label(found)
        name = urllib.parse.unquote(found["name"])
        known = self._versions.status(version) if name == self._name else []
        if not known:
            what = "any versions" if version is None else f"version {version}"
            raise RequestError(f"Could not find {what} of model {name}", Code.NOT_FOUND)
        return _json({"model_version_status": known})

    def _find(self, found: re.Match[str]) -> Model:
        """Returns the model that a path names."""
        version = _version(found)
        _check_label(found)
        name = urllib.parse.unquote(found["name"])
        if name != self._name:
            wanted = f"Latest({name})"
            if version is not None:
                wanted = f"Specific({name}, {version})"
            raise RequestError(
                f"Servable not found for request: {wanted}", Code.NOT_FOUND
            )
        return self._versions.get(name, version)

    async def _post(self, request: Request, found: re.Match[str]) -> Response:
        started = time.monotonic()
        status = Code.INTERNAL.name
        try:
            if self.draining:
                raise RequestError(
                    "The server is shutting down.", Code.UNAVAILABLE, retry_after=1
                )
            with self._budget.share() as share:
                answer = await self._predict(request, found, share, started)
            status = "OK"
            return Response(answer, media_type="application/json")
        except RequestError as error:
            status = error.code.name
            raise
        except ClientDisconnect:
            status = Code.CANCELLED.name
            return Response(status_code=Code.CANCELLED.http_status)
        finally:
            if found["verb"].lower() == "predict":
                self._metrics.observe(status, time.monotonic() - started)

    async def _predict(
        self, request: Request, found: re.Match[str], share: Share, started: float
    ) -> bytes:
        limits = self._limits
        deadline = started + limits.timeout_seconds
        try:
            async with asyncio.timeout(limits.timeout_seconds):
                body = await read_body(request, share, limits.body_bytes)
        except TimeoutError:
            raise RequestError(
                "The request's body did not come in time.",
                Code.DEADLINE_EXCEEDED,
                http_status=408,
            ) from None
        if len(body) <= _PARSED_AT_ONCE:
            document = strict_json.parse(body)
        else:
            document = await run_in_threadpool(strict_json.parse, body)
        model = self._find(found)
        verb = found["verb"].lower()
        if verb != "predict":
            raise _not_for(verb, document, model)
        predict = PredictRequest.from_json(document)
        specs = model.signature(predict.signature_name).inputs
        if len(body) <= _PARSED_AT_ONCE:
            inputs = predict.arrays(specs, limits.request)
        else:
            inputs = await run_in_threadpool(predict.arrays, specs, limits.request)

        def call() -> bytes:
            timeout_ms = int((deadline - time.monotonic()) * 1000)
            if not timeout_ms > 0:
                raise _too_late()
            outputs = model.predict(predict.signature_name, inputs, timeout_ms)
            return predict_reply(outputs, predict.row_format)

        return await self._wait(self._workers.submit(call), request, deadline)

    async def _wait(self, job: Job, request: Request, deadline: float) -> bytes:
        """Returns what the job returns, unless time or the client is gone first."""
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait(
                (job.future, gone),
                timeout=deadline - time.monotonic(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if job.future.done():
                return job.future.result()
            if gone.done():
                raise ClientDisconnect
            raise _too_late()
        finally:
            gone.cancel()
            self._workers.abandon(job)


async def _disconnected(request: Request) -> None:
    """Returns when the client has gone. The body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _not_for(verb: str, document: Any, model: Model) -> RequestError:
    """Returns why a classify or regress request is not answered."""
    name = DEFAULT_SIGNATURE
    if isinstance(document, dict):
        name = document.get("signature_name", "") or DEFAULT_SIGNATURE
    if not isinstance(name, str):
        return RequestError("'signature_name' must be a string.")
    wanted = f"tensorflow/serving/{verb}"
    method = model.signature(name).method_name
    if method != wanted:
        return RequestError(
            f"Expected the signature's method_name to be {wanted}. Was: {method}"
        )
    return RequestError(
        f"This server answers predict requests alone, not {verb}.",
        Code.UNIMPLEMENTED,
    )


def _version(found: re.Match[str]) -> int | None:
    if found["version"] is None:
        return None
    if not len(found["version"]) <= 19 or not int(found["version"]) < 2**63:
        raise RequestError(
            f"Failed to convert version: {found['version'][:40]} to numeric."
        )
    return int(found["version"])


def _check_label(found: re.Match[str]) -> None:
    if found["label"] is not None:
        raise RequestError(
            "Unrecognized servable version label: "
            f"{urllib.parse.unquote(found['label'])[:64]}"
        )


def _too_late() -> RequestError:
    return RequestError("Timed out waiting for the model.", Code.DEADLINE_EXCEEDED)


def _json(value: Any) -> Response:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return Response(text + "\n", media_type="application/json")


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    # Some of the message may be the client's own, so it must become valid UTF-8.
    message = error.message.encode("utf-8", "replace").decode()
    return Response(
        json.dumps({"error": message}, ensure_ascii=False),
        error.http_status,
        headers,
        media_type="application/json",
    )


def _not_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Response(
        json.dumps({"error": error.detail}),
        error.status_code,
        media_type="application/json",
    )


def _failed(request: Request, error: Exception) -> Response:
    # Starlette raises the error again after this, and uvicorn logs it.
    return Response(
        json.dumps({"error": "Internal error."}), 500, media_type="application/json"
    )
