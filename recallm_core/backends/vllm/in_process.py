"""A model that vLLM's own engine runs for this process: batched, streamed, cancellable, cached.

The engine is vLLM's ``AsyncLLM`` rather than its ``LLMEngine``: it runs steps in a process of its
own, so that replaying answers here doesn't slow them; requests come, leave and are aborted at any
step without a lock around the engine; and it notices when that process dies. Its event loop runs in
one thread that the backend owns, so callers may have loops of their own, or none.

The constraint is obeyed in that other process, by ``serving.processor``. So a prior is static
there, as it is on a server.
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import secrets
import uuid
import weakref
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from pathlib import Path
from typing import Any

import torch

from recallm_core._version import __version__
from recallm_core.backends import Sampling
from recallm_core.backends.checks import FORKED
from recallm_core.backends.vllm import setup as vllm_setup
from recallm_core.backends.vllm.base import RemoteBackend
from recallm_core.backends.vllm.connection import one_line
from recallm_core.backends.vllm.loop_thread import LoopThread
from recallm_core.backends.vllm.manifest import PROCESSOR
from recallm_core.backends.vllm.wire import ARGUMENT, OutputChunk, settings
from recallm_core.errors import CheckpointError, GenerationCancelledError, GenerationError
from recallm_core.inputs.model_config import eos_ids
from recallm_core.locks import ForkSafeLock
from recallm_core.models.checkpoint import auto_dtype

_STOP_SECONDS = 60.0  # vLLM waits for its processes, and kills them then
_GUARD = (
    "in a script, load the model below if __name__ == '__main__':, for vLLM imports the script "
    "again in a process of its own"
)


class VllmBackend(RemoteBackend):
    """A model in an engine of its own; ``load`` makes one.

    Args:
        engine: A running engine; from now on only this object uses it.
        folder: The model's folder.
    """

    fix = "this vLLM doesn't hand logits to RecaLLM's processor; it needs vLLM 0.31 to 0.33"

    def __init__(self, engine: _Engine, folder: Path) -> None:
        config = engine.llm.vllm_config
        model = config.model_config
        super().__init__(window=int(model.max_model_len), vocab_size=int(model.get_vocab_size()))
        self.about = {
            "engine": f"vLLM {vllm_setup.version()}",
            "runner": vllm_setup.runner(config),
            "model": folder.name,
            "release": __version__,
        }
        self._folder = folder
        self._engine = engine
        self._stop = weakref.finalize(self, engine.stop)

    def __repr__(self) -> str:
        return f"VllmBackend({str(self._folder)!r})"

    @property
    def where(self) -> str:
        """The engine and its model's folder."""
        return f"{self.about['engine']} with {self._folder}"

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an output, as the checkpoint's configuration names them."""
        return eos_ids(self._folder)

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Runs a coroutine on the engine's loop."""
        return self._engine.start(work)

    def prepare(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        eos: Sequence[int],
        spec: str | None,
        **more: Any,
    ) -> tuple[list[int], Any]:
        """Returns the prompt and vLLM's sampling parameters: only new ids are wanted, no text."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling_params = SamplingParams(
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=None if spec is None else {ARGUMENT: spec},
            **settings(sampling, eos),
            **more,
        )
        return list(prompt), sampling_params

    async def chunks(self, prepared: tuple[list[int], Any]) -> AsyncGenerator[OutputChunk, None]:
        """The engine's outputs for one request; closing it aborts the request.

        Raises:
            GenerationError: The engine died, refused the request, or failed at it.
        """
        prompt, sampling_params = prepared
        tokens = {"type": "token", "prompt_token_ids": prompt}
        outputs = self._engine.llm.generate(tokens, sampling_params, uuid.uuid4().hex)
        first = True
        async with aclosing(outputs):
            while True:
                try:
                    output = await anext(outputs, None)
                except Exception as error:
                    raise _error_of(error) from error
                if output is None:
                    return
                yield _output_chunk(output, with_prompt=first)
                first = False

    def close(self) -> None:
        """Ends all streams and the engine; safe to call twice."""
        self._stop()


class _Engine:
    """vLLM's engine on an event loop of its own; nothing in it refers to its backend.

    Args:
        arguments: Of vLLM's ``AsyncEngineArgs``.

    Raises:
        CheckpointError: vLLM can't run the model so.
    """

    def __init__(self, arguments: Any) -> None:
        self.llm: Any = None
        self._closed = False
        self._gate = ForkSafeLock()  # nothing is started once the loop winds up
        self._thread = LoopThread("recallm-vllm", self._end, patience=_STOP_SECONDS)
        # Python waits at its exit for vLLM's processes; what is registered later runs earlier
        atexit.register(self.stop)
        try:
            self._thread.run(self._begin(arguments)).result()
        except BaseException:
            self.stop()
            raise

    async def _begin(self, arguments: Any) -> None:
        """Blocks the loop, which has nothing else to do yet; vLLM ties itself to the loop here."""
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            self.llm = AsyncLLM.from_engine_args(arguments)
        except Exception as error:  # vLLM raises whatever its parts do
            raise CheckpointError(
                f"vLLM can't run {arguments.model}: {type(error).__name__}: "
                f"{one_line(str(error))}; if that doesn't say why, what vLLM wrote before does; "
                f"{_GUARD}"
            ) from error

    async def _end(self) -> None:
        if self.llm is not None:
            self.llm.shutdown()

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Runs a coroutine on the loop.

        Raises:
            GenerationCancelledError: The engine was stopped.
            GenerationError: It runs in the process that this one was forked off.
        """
        with self._gate:
            if self._closed or not self._thread.alive:
                work.close()
                if self._closed:
                    raise GenerationCancelledError("the model was closed")
                raise GenerationError(FORKED)
            return self._thread.run(work)

    def stop(self) -> None:
        """Cancels all requests and ends vLLM's processes."""
        with self._gate:
            self._closed = True
        self._thread.stop()
        atexit.unregister(self.stop)


def _output_chunk(output: Any, *, with_prompt: bool) -> OutputChunk:
    (completion,) = output.outputs
    stop = completion.stop_reason
    return OutputChunk(
        tokens=tuple(completion.token_ids),
        prompt=tuple(output.prompt_token_ids) if with_prompt else None,
        finish_reason=completion.finish_reason,
        stop_id=stop if type(stop) is int else None,
        cached_tokens=output.num_cached_tokens,
    )


def _error_of(error: Exception) -> GenerationError:
    """What an exception of vLLM means to who waits for an answer."""
    from vllm.v1.engine.exceptions import EngineDeadError

    if isinstance(error, EngineDeadError):
        return GenerationError(
            "vLLM's engine has ended, and with it all its requests; what vLLM wrote before says "
            "why: close this model and load it again"
        )
    cause = error.__cause__ or error
    message = one_line(str(cause))
    return GenerationError(f"vLLM didn't take the request: {type(cause).__name__}: {message}")


def load(
    path: str | os.PathLike[str],
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    dtype: str | torch.dtype = "auto",
    window: int | None = None,
    **options: Any,
) -> VllmBackend:
    """Starts vLLM's engine with a model folder; no code of the checkpoint runs, no pickle is read.

    Args:
        path: A local folder.
        tokenizer: A folder or hub id to take the tokenizer from instead.
        dtype: ``auto`` is the checkpoint's own type; on a CPU float32, where it fits.
        window: The context length, input and output together; None: all that the model can
            attend to.
        options: Further arguments of vLLM's ``AsyncEngineArgs``, such as
            ``tensor_parallel_size``, ``gpu_memory_utilization`` or ``enforce_eager``.

    Raises:
        MissingExtraError: vLLM isn't installed.
        CheckpointError: The model is unsafe, damaged or of an unknown kind, or vLLM can't run it.
        ValueError: A setting is refused.
        TypeError: A setting isn't known.
    """
    vllm_setup.check_installed()
    check_options(options)
    folder = Path(path)
    plain, stored = vllm_setup.checked_folder(folder)
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # a fork of a process with threads, as this one has, may wait for ever for a lock of theirs
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    arguments = _arguments(plain, tokenizer or folder, options)
    arguments.dtype = _dtype(dtype, stored)
    arguments.max_model_len = window
    return VllmBackend(_Engine(arguments), folder)


def check_options(options: Mapping[str, Any]) -> None:
    """Checks what is to be handed to vLLM.

    Raises:
        ValueError: A setting would run a checkpoint's code, or loosen what is promised.
    """
    for name in options:
        why = vllm_setup.REFUSED.get(vllm_setup.plain_name(name))
        if why is not None:
            raise ValueError(f"{name} can't be set: {why}")


def _arguments(
    folder: Path, tokenizer: str | os.PathLike[str], options: Mapping[str, Any]
) -> Any:  # fmt: skip
    from vllm.engine.arg_utils import AsyncEngineArgs

    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)} - {"max_model_len"}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise TypeError(
            f"unknown options {unknown}; known: dtype, window, revision, local_files_only, and "
            f"the arguments of vLLM's engine: {sorted(known - vllm_setup.REFUSED.keys())}"
        )
    defaults: dict[str, Any] = {
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "seed": secrets.randbits(31),  # with vLLM's own, unseeded requests repeat at each start
    }
    if vllm_setup.reads_prompts_whole():
        defaults["enable_chunked_prefill"] = False
    return AsyncEngineArgs(
        model=str(folder),
        tokenizer=os.fspath(tokenizer),
        skip_tokenizer_init=True,
        load_format="safetensors",
        generation_config="vllm",
        logits_processors=[PROCESSOR],
        **(defaults | dict(options)),
    )


def _dtype(dtype: str | torch.dtype, stored: int) -> str | torch.dtype:
    """The type to run in; vLLM's own choice on a CPU is bfloat16, also for float32 weights."""
    from vllm.platforms import current_platform

    if dtype == "auto" and current_platform.is_cpu():
        return auto_dtype(torch.device("cpu"), stored)
    return dtype
