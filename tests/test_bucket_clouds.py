"""Lakes in Azure and in Google's store keep what one in S3 does: the same tests, over other servers.

Azure's is Azurite, Microsoft's emulator. Google's is a stand-in of our own (see `gcs`): there is none to install.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import obstore
import pytest

from pipeline.bucket import store
from pipeline.bucket.address import cache_folder, read_address
from pipeline.bucket.probe import has_conditions
from pipeline.errors import StoreError, UsageError
from pipeline.opening import open_lake
from tests.bucket import Bucket
from tests.clouds import GoogleBucket, making_container, making_google_bucket, serving_azurite
from tests.conftest import classify, land
from tests.gcs import serving_gcs
from tests.test_bucket import (
    rows_of,
    served,
    team,
    test_a_file_removed_in_the_bucket_is_removed_here_and_what_was_spoilt_here_comes_again,
    test_a_listing_passes_over_raw_logs_however_many_there_are,
    test_commands_give_over_a_bucket_from_changing_machines_what_they_give_over_a_folder,
    test_what_else_stands_in_the_bucket_is_left_alone_and_reaches_no_other_folder,
    test_what_lands_in_a_bucket_is_there_for_another_machine_as_it_is_in_a_folder,
    test_who_may_only_read_a_bucket_can_report_on_it,
)
from tests.test_bucket_crashes import scene, test_a_writer_killed_at_named_places_is_completed_by_the_next_machine
from tests.test_bucket_loads import (
    brief,
    test_a_log_that_was_edited_elsewhere_is_not_replaced_by_the_one_that_comes_back,
    test_a_machine_that_was_taken_for_dead_comes_back_with_more_and_nothing_is_lost,
    test_two_machines_do_not_sync_one_workspace_at_once_and_go_on_from_each_others_state,
    test_what_a_load_received_reaches_the_bucket_while_it_runs_and_lands_once_its_machine_has_vanished,
)
from tests.test_bucket_writers import (
    test_a_put_whose_answer_is_lost_counts_as_the_writers_own,
    test_a_run_that_moves_between_a_readers_list_and_its_downloads_is_there_once,
    test_a_store_that_goes_down_in_a_load_is_told_and_what_was_logged_lands_with_the_next_command,
    test_a_write_between_anothers_read_and_put_is_merged_with_and_not_lost,
    test_a_writer_waits_for_the_turn_of_another_machine_and_takes_over_from_one_that_died,
    test_the_credentials_stand_in_no_file_message_or_repr,
    test_two_machines_that_write_at_once_lose_no_row_of_each_other,
    test_what_passes_by_itself_is_tried_again,
)

pytestmark = pytest.mark.long

# Fixtures and tests of other modules, which run here with the `bucket` of this one.
__all__ = [
    "brief",
    "scene",
    "served",
    "team",
    "test_a_file_removed_in_the_bucket_is_removed_here_and_what_was_spoilt_here_comes_again",
    "test_a_listing_passes_over_raw_logs_however_many_there_are",
    "test_a_log_that_was_edited_elsewhere_is_not_replaced_by_the_one_that_comes_back",
    "test_a_machine_that_was_taken_for_dead_comes_back_with_more_and_nothing_is_lost",
    "test_a_put_whose_answer_is_lost_counts_as_the_writers_own",
    "test_a_run_that_moves_between_a_readers_list_and_its_downloads_is_there_once",
    "test_a_store_that_goes_down_in_a_load_is_told_and_what_was_logged_lands_with_the_next_command",
    "test_a_write_between_anothers_read_and_put_is_merged_with_and_not_lost",
    "test_a_writer_killed_at_named_places_is_completed_by_the_next_machine",
    "test_a_writer_waits_for_the_turn_of_another_machine_and_takes_over_from_one_that_died",
    "test_commands_give_over_a_bucket_from_changing_machines_what_they_give_over_a_folder",
    "test_the_credentials_stand_in_no_file_message_or_repr",
    "test_two_machines_do_not_sync_one_workspace_at_once_and_go_on_from_each_others_state",
    "test_two_machines_that_write_at_once_lose_no_row_of_each_other",
    "test_what_a_load_received_reaches_the_bucket_while_it_runs_and_lands_once_its_machine_has_vanished",
    "test_what_else_stands_in_the_bucket_is_left_alone_and_reaches_no_other_folder",
    "test_what_lands_in_a_bucket_is_there_for_another_machine_as_it_is_in_a_folder",
    "test_what_passes_by_itself_is_tried_again",
    "test_who_may_only_read_a_bucket_can_report_on_it",
]

Make = Callable[[Path], AbstractContextManager[Bucket]]


@pytest.fixture(scope="module", params=["az", "gs"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """A server of each protocol: what makes an empty bucket there."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "az":
        with serving_azurite(folder) as upstream:
            yield partial(making_container, upstream)
    else:
        with serving_gcs() as gcs:
            key_file = folder / "key.json"
            key_file.write_text(gcs.credentials())
            yield partial(making_google_bucket, gcs, key_file)


@pytest.fixture
def bucket(cloud: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket of each, and an environment that leads to it."""
    monkeypatch.setattr(store, "_RETRIES", 3)
    with cloud(tmp_path) as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


def test_a_writers_own_files_do_not_come_back_to_it(bucket: Bucket) -> None:
    lake = open_lake(bucket.url)
    land(lake, classify("clr_1"), classify("clr_2", createdAt="2026-11-03T01:00:00Z"))
    bucket.proxy.asked.clear()
    assert set(rows_of(bucket.url)) == {"clr_1", "clr_2"}
    assert bucket.proxy.count("GET") == 0
    assert has_conditions(lake.mirror.store)


def test_what_is_not_there_does_not_keep_others_from_being_deleted(bucket: Bucket) -> None:
    for number in range(30):
        obstore.put(bucket.store(), f"runs/{number}", b"x")
    open_lake(bucket.url).mirror.store.delete(["runs/none", *(f"runs/{number}" for number in range(30))])
    assert bucket.names() == []


def test_googles_bound_of_one_write_a_second_to_an_object_is_waited_for(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(bucket, GoogleBucket):
        pytest.skip("Azure has no such bound")
    monkeypatch.setattr(store, "_RETRIES", 8)  # as outside of tests
    bucket.gcs.between_writes_s = 1.0
    try:
        lake = open_lake(bucket.url)
        for number in range(3):
            land(lake, classify(f"clr_{number}"))
        assert set(rows_of(bucket.url)) == {"clr_0", "clr_1", "clr_2"}
        assert bucket.gcs.refused > 0
    finally:
        bucket.gcs.between_writes_s = 0.0


def test_a_bucket_that_is_not_there_is_told(bucket: Bucket) -> None:
    scheme = bucket.url.partition(":")[0]
    with pytest.raises(StoreError, match=r"listing: there is no such bucket \(HTTP 404"):
        open_lake(f"{scheme}://not-there/lake")


def test_an_azure_account_is_found_where_azures_own_programs_have_it() -> None:
    connection = "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=a2V5==;EndpointSuffix=core.windows.net"
    for env, endpoint in [
        ({"AZURE_STORAGE_ACCOUNT_NAME": "acme"}, "https://acme.blob.core.windows.net"),
        ({"AZURE_STORAGE_ACCOUNT": "acme"}, "https://acme.blob.core.windows.net"),
        ({"AZURE_STORAGE_CONNECTION_STRING": connection}, "https://acme.blob.core.windows.net"),
        (
            {"AZURE_STORAGE_CONNECTION_STRING": f"{connection};BlobEndpoint=https://acme.example"},
            "https://acme.example",
        ),
    ]:
        assert read_address("az://container/lake", env).endpoint == endpoint
    homes = [
        cache_folder(read_address("az://container/lake", {"AZURE_STORAGE_ACCOUNT": name}), {"PIPELINE_CACHE": "/c"})
        for name in ("acme", "other")
    ]
    assert homes[0] != homes[1]


def test_without_an_account_the_message_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        open_lake("az://container/lake")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "acme")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://store.example:10000/acme")
    with pytest.raises(UsageError, match="plain http:// would send payloads unencrypted"):
        open_lake("az://container/lake")
