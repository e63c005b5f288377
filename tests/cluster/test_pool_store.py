"""The store in the real API keeps the promises of every other store."""

import random
from collections.abc import AsyncIterator

import pytest

from kube_cluster import Site
from router_pool_contract import PoolStoreContract
from sie_router.control.kube import connect
from sie_router.control.pools import PoolStore
from sie_router.control.pools_kube import KubePools


class TestKubePools(PoolStoreContract):
    @pytest.fixture
    async def stores(self, site: Site) -> AsyncIterator[tuple[PoolStore, PoolStore]]:
        one, two = connect(site.account.kubeconfig), connect(site.account.kubeconfig)
        yield KubePools(one, random.random), KubePools(two, random.random)
        await one.close()
        await two.close()
