"""A cluster of three local nodes of one core each, and drivers on it: ``make test-ray``."""

import os
import shutil
import tempfile

import pytest
from driving import STORE, World


@pytest.fixture(scope="session")
def cluster():
    folder = tempfile.mkdtemp(prefix="gf-", dir="/tmp")  # a socket's path is short
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
    os.environ |= quiet | {"RAY_TMPDIR": folder}
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=STORE)
    yield made
    made.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def wholes(tmp_path_factory):
    """A folder for what one machine makes of the same grids."""
    return tmp_path_factory.mktemp("alone")


@pytest.fixture
def world(cluster, tmp_path, wholes):
    made = World(cluster, tmp_path, wholes)
    yield made
    for driver in made.drivers:
        if driver.poll() is None:
            driver.kill()
            driver.communicate()
