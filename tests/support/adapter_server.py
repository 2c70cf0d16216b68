"""A server of adapters that stands behind `melo serve` in tests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from peft import PeftConfig
from starlette.responses import JSONResponse, Response, StreamingResponse

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
NAME = "org/base"


@dataclass
class AdapterServer:
    """A server of adapters that answers with the name of the model that it was asked for.

    Attributes:
        loaded: folder of each adapter by its name.
        asked: the bodies of requests.
        fails: status that requests are answered with, instead of an answer.
        cuts: whether streams end before their end.
    """

    loaded: dict[str, str] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    fails: int = 0
    cuts: bool = False
    key: str | None = None

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/health")
        async def health() -> dict[str, str]:
            return {}

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            adapters = [{"id": name, "parent": NAME} for name in self.loaded]
            return {"data": [*adapters, {"id": NAME, "parent": None}]}

        @app.post("/v1/load_lora_adapter")
        async def load(request: Request) -> Response:
            body = await request.json()
            self.loads.append(body["lora_name"])
            if body["lora_name"] in self.loaded:
                return JSONResponse({"error": {"message": "already been loaded"}}, 400)
            PeftConfig.from_pretrained(body["lora_path"])
            self.loaded[body["lora_name"]] = body["lora_path"]
            return Response("Success")

        @app.post(CHAT)
        @app.post(PLAIN)
        async def answer(request: Request) -> Response:
            body = await request.json()
            self.asked.append(body | {"key": request.headers.get("authorization")})
            if self.fails:
                return JSONResponse({"error": {"message": f"no {body['model']}"}}, self.fails)
            if body["model"] not in {NAME, *self.loaded}:
                return JSONResponse({"error": {"message": "no such model"}}, 404)
            return self._answered(body)

        return app

    def _answered(self, body: dict[str, Any]) -> Response:
        said = f"by {body['model'].split('-')[0]}"
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        chat = "messages" in body
        if not body["stream"]:
            own = {"message": {"role": "assistant", "content": said}} if chat else {"text": said}
            choice = {"index": 0, "finish_reason": "stop", "own": 1} | own
            return JSONResponse({"id": "theirs", "model": body["model"], "choices": [choice], "usage": usage})

        async def events() -> AsyncIterator[str]:
            for word in said.split(" "):
                own = {"delta": {"content": word}} if chat else {"text": word}
                yield f"data: {json.dumps({'choices': [{'index': 0} | own]})}\n\n"
            if not self.cuts:
                yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")
