"""The engine behind this process: vLLM, SGLang or LoRAX, which hold the base model and load the adapters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from melo_cli.serving.engines.adapters import AdapterFolder
from melo_cli.serving.engines.engine import Answer, Question
from melo_cli.serving.errors import ApiError
from melo_cli.serving.openai_schema import ChatCompletionRequest, ChatMessage
from melo_store.records import Block

_DATA = "data:"
_DONE = "[DONE]"
# Seconds; less than the server keeps an idle connection (vLLM 5 s), so that none is used as it closes it.
_KEEP_ALIVE = 2.0


@dataclass(frozen=True)
class Dialect:
    """How a kind of server takes adapters.

    Attributes:
        load: path that loads one; None where the request itself does.
        model: what a request names, with `{base}`, `{adapter}` and `{path}`.
        fields: further fields of a request that names an adapter.
    """

    load: str | None
    model: str
    fields: Mapping[str, Any]


DIALECTS = {
    # docs.vllm.ai/en/latest/features/lora.html
    "vllm": Dialect("/v1/load_lora_adapter", "{adapter}", {}),
    # docs.sglang.io/advanced_features/lora.html
    "sglang": Dialect("/load_lora_adapter", "{base}:{adapter}", {}),
    # github.com/predibase/lorax: docs/guides/openai_api.md
    "lorax": Dialect(None, "{path}", {"adapter_source": "local"}),
}


class UpstreamEngine:
    """Asks another server, under the base model's name or that of an adapter.

    Args:
        url: the server, without `/v1`.
        adapters: where the adapters lie; the server reads them there.
        model_name: the base model's name on that server; None asks for it.
        dialect: the kind of server.
        key: the server's own key.
        timeout: seconds that one answer may take.
    """

    def __init__(
        self,
        url: str,
        adapters: AdapterFolder,
        *,
        model_name: str | None,
        dialect: Dialect,
        key: str | None,
        timeout: float,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=256, keepalive_expiry=_KEEP_ALIVE
        )
        self._url = url.rstrip("/")
        self._client = httpx.AsyncClient(
            base_url=self._url, headers=headers, timeout=httpx.Timeout(timeout, connect=5.0), limits=limits
        )
        self._adapters = adapters
        self._name = model_name
        self._dialect = dialect
        self._loading: dict[str, asyncio.Task[None]] = {}

    @property
    def model_name(self) -> str:
        return self._name or "base"

    async def start(self) -> None:
        """Ask the server for the name of its base model; one that is not there yet may come later."""
        if self._name is None:
            try:
                self._name = await self._base_name()
            except ApiError:
                return

    async def stop(self) -> None:
        await self._client.aclose()

    async def is_ready(self) -> bool:
        try:
            answer = await self._client.get("/health", timeout=2.0)
        except httpx.HTTPError:
            return False
        return answer.status_code < 500

    async def answer(self, question: Question) -> Answer:
        response = await self._asked(question, stream=False)
        try:
            await response.aread()
            document = response.json()
            return Answer(document["choices"], document.get("usage"))
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise _gone(self._url, error) from error
        finally:
            await response.aclose()

    async def stream(self, question: Question) -> AsyncIterator[Answer]:
        response = await self._asked(question, stream=True)
        try:
            async for line in response.aiter_lines():
                data = line.removeprefix(_DATA).strip() if line.startswith(_DATA) else ""
                if data == _DONE:
                    return
                if data:
                    yield _part(data)
            raise _gone(self._url, None)
        except (httpx.HTTPError, ValueError) as error:
            raise _gone(self._url, error) from error
        finally:
            await response.aclose()

    async def _asked(self, question: Question, *, stream: bool) -> httpx.Response:
        """The response to a request, with its status checked.

        Raises:
            ApiError: the server refuses the request, or cannot be asked.
        """
        block = question.routed.block
        adapter = self._adapters.name(block) if block is not None else None
        response = await self._sent(question, adapter, stream)
        if response.status_code == 404 and block is not None and adapter is not None:
            # The server has been started anew, and does not know the adapter.
            await response.aclose()
            self._loading.pop(adapter, None)
            response = await self._sent(question, adapter, stream)
        if response.status_code >= 400:
            try:
                await response.aread()
            except httpx.HTTPError as error:
                raise _gone(self._url, error) from error
            raise self._refusal(response, adapter)
        return response

    async def _sent(self, question: Question, adapter: str | None, stream: bool) -> httpx.Response:
        block = question.routed.block
        if block is not None and adapter is not None:
            await self._load(block, adapter)
        if self._name is None:
            self._name = await self._base_name()
        chat = isinstance(question.request, ChatCompletionRequest)
        path = "/v1/chat/completions" if chat else "/v1/completions"
        body = self._body(question, adapter, stream)
        request = self._client.build_request("POST", path, json=body)
        async with _reachable(self._url):
            return await self._client.send(request, stream=True)

    def _body(self, question: Question, adapter: str | None, stream: bool) -> dict[str, Any]:
        body = question.request.model_dump(mode="json", exclude_unset=True, by_alias=True)
        if isinstance(question.request, ChatCompletionRequest):
            body["messages"] = [
                each.model_dump(mode="json", exclude_unset=True)
                for each in question.prompt
                if isinstance(each, ChatMessage)
            ]
        else:
            body["prompt"] = question.prompt
        body.update(model=self._name, stream=stream)
        body.pop("stream_options", None)
        if stream:
            body["stream_options"] = {"include_usage": True}
        if adapter is not None:
            path = str(self._adapters.folder / adapter)
            body["model"] = self._dialect.model.format(base=self._name, adapter=adapter, path=path)
            body.update(self._dialect.fields)
        return body

    async def _load(self, block: Block, adapter: str) -> None:
        """Have the server load an adapter, once; those who ask meanwhile wait for it."""
        task = self._loading.get(adapter)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._loading[adapter] = asyncio.create_task(self._load_now(block, adapter))
        await asyncio.shield(task)

    async def _load_now(self, block: Block, adapter: str) -> None:
        path = await asyncio.to_thread(self._adapters.path, block)
        if self._dialect.load is None:
            return
        async with _reachable(self._url):
            response = await self._client.post(
                self._dialect.load, json={"lora_name": adapter, "lora_path": str(path)}
            )
        if response.status_code >= 400 and "already" not in response.text:
            raise ApiError(
                502,
                f"the server at {self._url} does not load adapters: {response.status_code} "
                f"{_message(response)}; start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=true",
            )

    async def _base_name(self) -> str:
        async with _reachable(self._url):
            response = await self._client.get("/v1/models", timeout=5.0)
        try:
            models = response.json()["data"]
            return next(str(each["id"]) for each in models if not each.get("parent"))
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise _gone(self._url, error) from error

    def _refusal(self, response: httpx.Response, adapter: str | None) -> ApiError:
        message = _message(response)
        if adapter is not None:
            message = message.replace(adapter, self.model_name)
        if response.status_code in (401, 403) or response.status_code >= 500:
            return ApiError(502, f"the server at {self._url} answers {response.status_code}: {message}")
        return ApiError(response.status_code, message)


def _part(data: str) -> Answer:
    document = json.loads(data)
    if "error" in document:
        error = document["error"]
        raise ApiError(502, str(error.get("message", error) if isinstance(error, dict) else error))
    return Answer(document.get("choices") or [], document.get("usage"))


def _message(response: httpx.Response) -> str:
    try:
        document = response.json()
    except ValueError:
        return response.text[:500]
    error = document.get("error", document) if isinstance(document, dict) else document
    return str(error.get("message", error) if isinstance(error, dict) else error)


@asynccontextmanager
async def _reachable(url: str) -> AsyncIterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise _gone(url, error) from error


def _gone(url: str, error: Exception | None) -> ApiError:
    if isinstance(error, httpx.TimeoutException):
        return ApiError(504, f"the server at {url} did not answer in time")
    why = f" ({type(error).__name__})" if error is not None else ""
    return ApiError(502, f"the server at {url} is gone or does not answer as it should{why}")
