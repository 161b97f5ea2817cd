"""Variants of tests that take their time and rarely tell more than those that every run has.

They are marked ``long``: ``pytest -m long tests/engine``.
"""

_VARIANTS = {
    ("test_watch.py", "test_what_is_built_or_tagged_is_on_the_nodes"): ("podman-lab-p3",),
    ("test_compatibility.py", "test_what_is_loaded_is_on_every_containerd"): (
        "docker-archive]",
        "docker-archive, gzip",
        "docker-archive, zstd",
        "docker-archive of Docker 25+, gzip",
        "docker-archive of Docker 25+, zstd",
        "OCI archive, gzip",
        "OCI archive, zstd",
        "standard input: docker-archive",
        "standard input: docker-archive of",
        "Docker 28, graphdriver",
        "Podman, rootless",
        "Docker 20.10",
        "docker-archive of Docker 25+]",
        "OCI layout folder",
        "standard input: OCI",
    ),
    ("test_delta.py", "test_what_the_node_lost_meanwhile_is_sent_after_all"): (
        "docker28-lab-d16",
        "podman-lab-d16",
        "docker-lab-p17",
        "docker28-lab-p17",
        "docker-lab-d16",
        "podman-lab-d21",
    ),
    ("test_clusters.py", "test_clusters_labels_of_an_image_make_no_node"): ("lab-p21",),
    ("test_delta.py", "test_a_rebuild_moves_its_own_layer_only"): (
        "docker-lab-d16",
        "docker28-lab-p21",
        "podman-lab-d17",
        "docker-lab-d17",
        "docker-lab-p21",
        "docker28-lab-d16",
        "docker28-lab-d17",
        "podman-lab-d16",
        "podman-lab-d21",
    ),
    ("test_errors.py", "test_a_full_node_is_clean_afterwards"): (
        "60m-80-podman",
        "100m-60-podman",
    ),
    ("test_load.py", "test_an_image_reaches_a_node_with_its_id"): (
        "docker-lab-p21",
        "podman-lab-d17",
        "docker28-lab-p17",
        "docker-lab-d17",
        "docker-lab-p16",
        "docker28-lab-p16",
        "docker28-lab-d17",
        "podman-lab-p17",
        "podman-lab-d16",
        "docker-lab-p17",
        "docker28-lab-d16",
        "docker28-lab-p21",
        "podman-lab-d21",
    ),
    ("test_load.py", "test_all_nodes_get_all_images"): ("docker-lab-p3", "podman-lab-d3"),
    ("test_load.py", "test_the_same_tag_moves"): ("lab-d17", "lab-p16", "lab-p17"),
    ("test_load.py", "test_nothing_but_what_was_asked_for_is_left"): (
        "lab-d17",
        "lab-p16",
        "lab-p17",
    ),
    ("test_prune.py", "test_old_builds_go_and_what_a_container_uses_stays"): ("lab-d16", "lab-d17"),
    ("test_prune.py", "test_only_what_imgload_loaded_goes_unless_told"): ("lab-d16",),
    ("test_registry.py", "test_what_is_pushed_is_pulled_and_the_node_left_as_it_was"): (
        "docker28-lab-d16",
        "podman-lab-d17",
    ),
    ("test_registry.py", "test_a_one_line_change_is_pushed_as_that"): ("podman",),
    ("test_remote.py", "test_an_engine_over_ssh_is_source_and_host_of_nodes"): ("lab-p21",),
    ("test_rounds.py", "test_skaffolds_artifacts"): ("docker]", "docker28-graphdriver", "podman"),
    ("test_skaffold.py", "test_the_example_is_complete"): ("podman",),
    ("test_skaffold.py", "test_what_skaffold_deploys_is_on_the_nodes"): (
        "docker]",
        "docker28-graphdriver",
    ),
    ("test_skaffold.py", "test_a_command_of_the_users_own_builds"): ("podman",),
    ("test_skaffold.py", "test_a_push_is_no_load"): ("podman",),
    ("test_skaffold.py", "test_cancelled_while_loading_it_leaves_nothing"): (
        "docker-40",
        "podman-80",
    ),
    ("test_streaming.py", "test_a_large_image_takes_little_memory_and_no_disk"): (
        "docker-lab-p21",
        "podman-lab-d21-300",
    ),
    ("test_streaming.py", "test_stopped_half_way_it_leaves_nothing"): ("",),
    ("test_together.py", "test_ten_loads_of_different_images"): ("docker", "podman"),
    ("test_together.py", "test_two_loads_of_the_same_image"): ("podman",),
    ("test_watch.py", "test_what_is_loaded_into_an_engine_is_on_the_nodes"): ("podman",),
}
_STARTS = [
    f"{file}::{test}[{variant}"
    for (file, test), variants in _VARIANTS.items()
    for variant in variants
]
SELDOM = ("test_lab.py::", *_STARTS)
"""Starts of node IDs; the lab's own tests among them, since every other one runs on it."""
