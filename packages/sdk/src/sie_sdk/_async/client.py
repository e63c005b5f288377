"""SIEAsyncClient. Each method says what to call; `sie_sdk.calls` and `sie_sdk.capacity` say what it means."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, overload

from sie_sdk import calls, capacity, extraction, settings, watching
from sie_sdk.driver_async import AsyncLink
from sie_sdk.errors import SIEError
from sie_sdk.messages import OnProgress, OnWait
from sie_sdk.pools import Pools
from sie_sdk.retry import MAX_OOM_RETRIES
from sie_sdk.types import (
    CapacityInfo,
    EncodeResult,
    ExtractResult,
    Item,
    ModelInfo,
    PoolInfo,
    PoolListItem,
    PoolRequest,
    ScoreResult,
    StatusFrame,
)
from sie_sdk.watching import Mode

if TYPE_CHECKING:
    from httpx import AsyncClient


class SIEAsyncClient:
    """Client of a SIE router or worker, for any number of tasks of one event loop.

        async with SIEAsyncClient("http://localhost:8080") as client:
            result = await client.encode("BAAI/bge-m3", {"text": "Hello world"})
            print(result["dense"].shape)

    Args:
        base_url: the server, for example "http://sie.example.com". Default: SIE_BASE_URL.
        timeout_s: longest time of one attempt.
        api_key: sent as bearer token. Default: SIE_API_KEY.
        gpu: machine profile, or "pool/profile", of calls that name none.
        options: model options of every call; options of a call win.
        max_connections: simultaneous requests; more wait for their turn.
        on_wait: called with a `WaitEvent` before each wait, for example to print what the call waits for. What it
            raises ends the call.
        pool: a pool such as {"name": "tenant-abc", "gpus": {"l4": 2}} for calls that name no target, or this one. Made
            with the first of them, and kept as `create_pool` does.
        base_url_headers: further headers of every request, for example those that a proxy in front of the cluster asks
            for.
        connect_timeout_s: longest time of an attempt to open a connection.
        read_timeout_s: beats `timeout_s`; newer published clients have this name for it.
        http_client: an httpx client that sends all requests, for example with a proxy or a certificate of its own. Its
            limits, headers and hooks hold. It stays open; whoever made it closes it. `watch` goes its own way.

    None stands for the default everywhere. All methods raise `SIEError`, by kind: SIEConnectionError, RequestError,
    ServerError, ProvisioningError and so on. Whoever creates a client closes it, best by `with`.
    """

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        base_url: str | None = None,
        *,
        timeout_s: float | None = settings.TIMEOUT_S,
        api_key: str | None = None,
        gpu: str | None = None,
        options: Mapping[str, Any] | None = None,
        max_connections: int | None = settings.MAX_CONNECTIONS,
        on_wait: OnWait | None = None,
        pool: PoolRequest | None = None,
        base_url_headers: Mapping[str, str] | None = None,
        connect_timeout_s: float | None = settings.CONNECT_TIMEOUT_S,
        read_timeout_s: float | None = None,
        http_client: "AsyncClient | None" = None,
    ) -> None:
        self._settings = settings.resolve(
            base_url,
            timeout_s=timeout_s,
            api_key=api_key,
            gpu=gpu,
            options=options,
            max_connections=max_connections,
            pool=pool,
            headers=base_url_headers,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
        )
        self._link = AsyncLink(self._settings, on_wait, http_client)
        self._pools = Pools(self._settings, self._link.book)

    @overload
    async def encode(
        self,
        model: str,
        items: Item,
        *,
        output_types: Sequence[str] | None = None,
        instruction: str | None = None,
        output_dtype: str | None = None,
        is_query: bool | None = None,
        options: Mapping[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = MAX_OOM_RETRIES,
        on_progress: OnProgress | None = None,
    ) -> EncodeResult: ...

    @overload
    async def encode(
        self,
        model: str,
        items: Sequence[Item],
        *,
        output_types: Sequence[str] | None = None,
        instruction: str | None = None,
        output_dtype: str | None = None,
        is_query: bool | None = None,
        options: Mapping[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = MAX_OOM_RETRIES,
        on_progress: OnProgress | None = None,
    ) -> list[EncodeResult]: ...

    async def encode(  # noqa: PLR0913 - the documented signature
        self,
        model: str,
        items: Item | Sequence[Item],
        *,
        output_types: Sequence[str] | None = None,
        instruction: str | None = None,
        output_dtype: str | None = None,
        is_query: bool | None = None,
        options: Mapping[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = MAX_OOM_RETRIES,
        on_progress: OnProgress | None = None,
    ) -> EncodeResult | list[EncodeResult]:
        """Embed one item, or a list of items in order; see `sie_sdk.calls` for arguments and results."""
        merged = calls.merged_options(self._settings.options, options, is_query=is_query)
        params = calls.encode_params(output_types, instruction, output_dtype, merged)
        terms = self._settings.terms(
            gpu,
            model,
            wait_for_capacity=wait_for_capacity,
            budget_s=provision_timeout_s,
            max_oom_retries=max_oom_retries,
        )
        plan = calls.encode(terms, model, calls.as_list(items), params, on_progress)
        results = await self._link.adrive(self._pools.within(terms, plan))
        return results[0] if isinstance(items, Mapping) else results

    async def score(  # noqa: PLR0913 - the documented signature
        self,
        model: str,
        query: Item,
        items: Sequence[Item],
        *,
        instruction: str | None = None,
        options: Mapping[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = MAX_OOM_RETRIES,
        on_progress: OnProgress | None = None,
    ) -> ScoreResult:
        """Score items against a query, best first; see `sie_sdk.calls` for arguments and results."""
        merged = calls.merged_options(self._settings.options, options, is_query=None)
        terms = self._settings.terms(
            gpu,
            model,
            wait_for_capacity=wait_for_capacity,
            budget_s=provision_timeout_s,
            max_oom_retries=max_oom_retries,
        )
        plan = calls.score(terms, model, query, calls.as_list(items), instruction, merged, on_progress)
        return await self._link.adrive(self._pools.within(terms, plan))

    @overload
    async def extract(
        self,
        model: str,
        items: Item,
        *,
        labels: Sequence[str] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        instruction: str | None = None,
        options: Mapping[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = MAX_OOM_RETRIES,
        on_progress: OnProgress | None = None,
    ) -> ExtractResult: ...

    @overload
    async def extract(
        self,
        model: str,
        items: Sequence[Item],
        *,
        labels: Sequence[str] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        instruction: str | None = None,
        options: Mapping[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = MAX_OOM_RETRIES,
        on_progress: OnProgress | None = None,
    ) -> list[ExtractResult]: ...

    async def extract(  # noqa: PLR0913 - the documented signature
        self,
        model: str,
        items: Item | Sequence[Item],
        *,
        labels: Sequence[str] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        instruction: str | None = None,
        options: Mapping[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = MAX_OOM_RETRIES,
        on_progress: OnProgress | None = None,
    ) -> ExtractResult | list[ExtractResult]:
        """Find what is in one item, or in each of a list; see `sie_sdk.extraction` for arguments and results."""
        merged = calls.merged_options(self._settings.options, options, is_query=None)
        params = extraction.extract_params(labels, output_schema, instruction, merged)
        terms = self._settings.terms(
            gpu,
            model,
            wait_for_capacity=wait_for_capacity,
            budget_s=provision_timeout_s,
            max_oom_retries=max_oom_retries,
        )
        plan = extraction.extract(terms, model, calls.as_list(items), params, on_progress)
        results = await self._link.adrive(self._pools.within(terms, plan))
        return results[0] if isinstance(items, Mapping) else results

    async def list_models(self) -> list[ModelInfo]:
        """Tell all models of the catalogue, loaded or not."""
        return await self._link.adrive(calls.list_models(self._settings.question_terms()))

    async def get_model(self, model: str) -> ModelInfo:
        """Tell one model: its inputs, outputs, dimensions and state."""
        return await self._link.adrive(calls.get_model(self._settings.question_terms(), model))

    async def get_capacity(self, *, gpu: str | None = None) -> CapacityInfo:
        """Tell the healthy workers of the cluster, or of one machine profile."""
        return await self._link.adrive(capacity.get_capacity(self._settings.question_terms(), gpu))

    async def wait_for_capacity(
        self,
        gpu: str,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        poll_interval_s: float = capacity.POLL_INTERVAL_S,
    ) -> CapacityInfo:
        """Wait until a worker of the profile is healthy; with a model, start one and load the model.

        Without a model this only looks, every `poll_interval_s`: it cannot wake a pool that is scaled to zero.
        `timeout_s` is 900 by default; then ProvisioningError.
        """
        terms = self._settings.terms(gpu, model, wait_for_capacity=True, budget_s=timeout_s)
        if model is None:
            return await self._link.adrive(capacity.wait_for_capacity(terms, gpu, poll_interval_s))
        return await self._link.adrive(self._pools.within(terms, capacity.warm_up(terms, gpu, model)))

    async def create_pool(
        self,
        name: str,
        gpus: Mapping[str, int],
        bundle: str | None = None,
        minimum_worker_count: int | None = None,
    ) -> PoolInfo:
        """Reserve workers and keep them until `delete_pool` or `close`; then use them by gpu="name/profile".

        Again with the same name it changes one's own pool. The lease is renewed in the background, and a pool that was
        lost all the same is made anew; `lease_failures` tells when that does not work.

        Args:
            name: letters, digits and dashes, at most 40.
            gpus: machine profile → number of workers.
            bundle: reserve only workers of this bundle.
            minimum_worker_count: workers that shall run also while nobody asks for anything.
        """
        spec = settings.pool_spec(name, gpus, bundle, minimum_worker_count)
        return await self._link.adrive(self._pools.create(spec))

    async def get_pool(self, name: str | None = None) -> PoolInfo | None:
        """Describe a pool and the workers that serve it; None when there is none. Default: the client's own."""
        return await self._link.adrive(self._pools.get(name))

    async def list_pools(self) -> list[PoolListItem]:
        """Tell the pools that this client may use, and the default one."""
        return await self._link.adrive(self._pools.list())

    async def renew_pool(self, name: str | None = None) -> bool:
        """Begin a pool's lease anew; False when there is none. Only for pools of others: one's own is kept anyway."""
        return await self._link.adrive(self._pools.renew(name))

    async def delete_pool(self, name: str | None = None) -> bool:
        """End a reservation; False when there was none. Default: the client's own."""
        return await self._link.adrive(self._pools.delete(name))

    @property
    def lease_failures(self) -> Mapping[str, SIEError]:
        """Pools whose last renewal failed, and why; attempts go on. Empty while all is well."""
        return dict(self._link.book.failures)

    async def watch(self, *, mode: Mode = "auto") -> AsyncGenerator[StatusFrame]:
        """Iterate over the live status of a router ("cluster"), of a worker ("worker"), or of whichever it is ("auto").

        Goes on until the caller stops or the client is closed: after a lost connection it connects again (`on_wait` is
        told), and only a server that refuses for good ends it, with the error of that refusal. Needs the extra `watch`.
        """
        path = watching.known_path(mode)
        if path is None:
            path = await self._link.adrive(watching.find_path(self._settings.question_terms()))
        async with aclosing(self._link.frames(path)) as frames:
            async for frame in frames:
                yield frame

    @property
    def base_url(self) -> str:
        """The server's address, without a slash at its end."""
        return self._settings.base_url

    def __getstate__(self) -> NoReturn:
        raise TypeError("a client holds connections and cannot be copied or pickled; make one in each process")

    async def close(self) -> None:
        """Close all connections; calls still running, also those that wait, raise SIEConnectionError."""
        await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"SIEAsyncClient({self.base_url!r})"
