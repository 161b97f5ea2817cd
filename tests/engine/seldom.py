"""Slow variants of tests that rarely find more than the variants of every run.

They are marked ``long``; ``scripts/test nightly`` runs them, too.
"""

_VARIANTS = {
    ("test_platforms.py", "test_an_image_only_for_another_platform_is_loaded_with_a_warning"): (
        "",
    ),
    ("test_watch.py", "test_a_built_or_tagged_image_is_loaded"): (
        "podman-lab-p3",
        "docker28-lab-d21",
        "docker-lab-d3",
    ),
    ("test_clusters.py", "test_containerd_may_have_another_distributions_paths"): (
        "rke2",
        "microk8s",
    ),
    ("test_clusters.py", "test_a_node_without_a_shell_is_refused"): ("docker28", "podman"),
    ("test_complete.py", "test_docker_may_store_an_empty_blob_for_several_layers"): (
        "pull",
        "delta",
    ),
    ("test_complete.py", "test_an_empty_blob_for_several_layers_needs_nodes_that_have_them"): (
        "oci-import",
        "empty_docker-pull",
    ),
    ("test_complete.py", "test_complete_sends_the_layers_that_are_only_unpacked"): (
        "lab-d21-docker28",
        "lab-d21-podman",
        "lab-d17",
        "lab-d16",
    ),
    ("test_complete.py", "test_an_empty_blob_is_not_another_layer"): ("import",),
    ("test_delta.py", "test_layers_collected_during_a_load_are_sent"): (
        "docker28-lab-d16",
        "docker-lab-p17",
        "docker28-lab-p17",
        "docker-lab-d16",
        "podman-lab-d21",
        "docker-lab-d21",
        "podman-lab-p17",
        "podman-lab-d16",
    ),
    ("test_archives.py", "test_one_bad_entry_does_not_fail_the_others"): ("import",),
    ("test_archives.py", "test_layers_may_be_absent_if_the_node_has_them"): ("old",),
    ("test_clusters.py", "test_labels_of_an_image_do_not_make_a_node"): ("lab-p21",),
    ("test_delta.py", "test_layers_collected_between_two_loads_are_sent"): ("a-loader",),
    ("test_delta.py", "test_a_rebuild_sends_only_its_new_layer"): (
        "docker26",
        "podman58",
        "docker-lab-d21",
        "docker-lab-d16",
        "docker28-lab-p21",
        "podman-lab-d17",
        "docker-lab-d17",
        "docker-lab-p21",
        "docker28-lab-d16",
        "docker28-lab-d17",
        "podman-lab-d16",
        "podman-lab-d21",
        "podman-lab-p21",
    ),
    ("test_errors.py", "test_a_full_node_is_clean_afterwards"): (
        "60m-80-docker",
        "60m-80-podman",
        "100m-60-podman",
    ),
    ("test_load.py", "test_an_image_keeps_its_id_on_the_node"): (
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
        "podman-lab-p16",
        "docker-lab-d16",
    ),
    ("test_load.py", "test_all_nodes_get_all_images"): (
        "docker-lab-p3",
        "podman-lab-d3",
        "podman-lab-p3",
    ),
    ("test_load.py", "test_a_rebuilt_image_takes_over_its_tag"): (
        "lab-d17",
        "lab-p16",
        "lab-p17",
        "lab-d21",
    ),
    ("test_load.py", "test_only_the_requested_name_appears_on_the_node"): (
        "lab-d17",
        "lab-p16",
        "lab-p17",
        "lab-d21",
    ),
    ("test_prune.py", "test_prune_removes_old_builds_and_keeps_images_in_use"): (
        "lab-d16",
        "lab-d17",
    ),
    ("test_prune.py", "test_prune_removes_only_images_that_imgload_loaded"): ("lab-d16",),
    ("test_registry.py", "test_nodes_pull_pushed_images_and_disconnect_restores_them"): (
        "docker28-lab-d16",
        "podman-lab-d17",
    ),
    ("test_registry.py", "test_a_push_sends_only_the_changed_layer"): ("podman",),
    ("test_remote.py", "test_an_engine_over_ssh_saves_images_and_runs_nodes"): ("lab-p21",),
    ("test_rounds.py", "test_skaffold_builds_several_artifacts_in_parallel"): (
        "docker-",
        "docker28-graphdriver",
        "podman",
        "docker28-10",
    ),
    ("test_manifests.py", "test_discarded_layers_leave_their_snapshots"): ("lab-d17", "lab-d16"),
    ("test_peers_others.py", "test_containerd_14160_zstd_layers_keep_their_media_type"): (
        "lab-d17",
        "lab-d16",
    ),
    ("test_rollback.py", "test_a_failed_load_keeps_the_image_of_another_load"): (
        "writes first-node full",
        "overwrites-stalled",
        "writes first-import failed",
        "overwrites-import failed",
    ),
    ("test_rounds.py", "test_functions_load_and_verify_several_images"): (
        "docker]",
        "docker28-graphdriver",
        "podman",
        "docker28]",
    ),
    ("test_rounds.py", "test_commands_load_and_verify_several_images"): (
        "docker]",
        "docker28-graphdriver",
        "podman",
        "docker28]",
    ),
    ("test_rounds.py", "test_a_reused_loader_loads_several_images"): (
        "docker]",
        "docker28-graphdriver",
        "docker28]",
        "podman",
    ),
    ("test_rounds.py", "test_a_watch_loads_several_images"): (
        "docker]",
        "docker28-graphdriver",
        "podman",
        "docker28]",
    ),
    ("test_watch.py", "test_a_build_during_a_dead_connection_is_loaded_once"): (
        "podman",
        "docker28",
    ),
    ("test_watch.py", "test_missing_images_are_loaded_with_the_next_image"): (
        "docker28-graphdriver",
    ),
    ("test_skaffold.py", "test_the_example_builds_and_loads"): ("podman",),
    ("test_skaffold.py", "test_the_image_that_skaffold_deploys_is_on_the_nodes"): (
        "docker]",
        "podman",
        "docker28-graphdriver",
    ),
    ("test_skaffold.py", "test_a_custom_command_builds_the_image"): ("podman",),
    ("test_skaffold.py", "test_a_push_does_not_load"): ("podman",),
    ("test_skaffold.py", "test_a_cancelled_load_leaves_nothing"): ("docker-60", "podman-100"),
    ("test_push_tags.py", "test_an_image_that_is_rebuilt_during_its_push_is_kept"): (
        "docker-unused",
        "docker28-graphdriver-used",
    ),
    ("test_registry_restart.py", "test_connect_changes_nothing_if_cri_does_not_read_the_folder"): (
        "1.7",
        "newest]",
        "1.6",
    ),
    ("test_registry_restart.py", "test_connect_restarts_containerd_if_the_option_is_set"): (
        "1.6",
        "1.7",
        "newest]",
    ),
    ("test_serve.py", "test_a_node_pulls_what_an_engine_has_built"): (
        "docker28-lab-d21",
        "docker-lab-d17",
        "podman-lab-d21",
        "docker28-lab-d17",
        "docker28-graphdriver",
        "docker-lab-d16",
        "podman-lab-p21",
        "podman-lab-d17",
    ),
    ("test_serve.py", "test_a_pulled_image_is_not_served"): ("docker]", "podman", "docker28"),
    ("test_serve.py", "test_a_node_is_changed_with_a_restart_only_if_that_is_allowed"): ("1.7",),
    ("test_verify.py", "test_deep_verification_finds_a_damaged_blob"): ("podman-lab-p17",),
    ("test_files.py", "test_files_of_archives_are_compared"): (
        "plain",
        "gzip",
        "zstd-lab-d16",
        "zstd-lab-p17",
    ),
    ("test_files.py", "test_nothing_stays_mounted_if_imgload_is_ended"): (
        "9-lab-p17",
        "2-lab-d21",
        "2-lab-p17",
    ),
    ("test_pull.py", "test_a_node_pulls_exactly_the_missing_blobs"): (
        "docker-lab-d16",
        "docker-lab-d21",
        "docker-lab-p21",
        "docker28-lab-d17",
        "docker28-lab-d21",
        "podman-lab-d16",
        "podman-lab-d17",
        "podman-lab-p21",
        "docker28-lab-p21",
        "docker28-lab-d16",
    ),
    ("test_streaming.py", "test_a_large_image_takes_little_memory_and_disk"): (
        "docker28-lab-d21-300-import",
        "docker-lab-p21",
        "podman-lab-d21-300",
        "docker28-lab-d21-300-pull",
    ),
    ("test_streaming.py", "test_an_interrupted_load_leaves_nothing"): ("",),
    ("test_together.py", "test_ten_parallel_loads_of_different_images_succeed"): (
        "docker",
        "podman",
    ),
    ("test_together.py", "test_two_parallel_loads_of_the_same_image_succeed"): (
        "podman",
        "docker]",
    ),
    ("test_watch.py", "test_an_image_loaded_into_an_engine_is_loaded_onto_the_nodes"): ("podman",),
    ("test_delta.py", "test_each_node_gets_only_its_missing_layers"): ("docker]", "podman"),
    ("test_delta.py", "test_a_wrong_cache_does_not_break_a_load"): ("lost", "garbage"),
    ("test_delta.py", "test_an_archive_load_omits_layers_on_the_node"): ("podman-",),
    ("test_delta.py", "test_a_survey_ahead_saves_the_survey_after_the_build"): (
        "docker]",
        "podman",
    ),
    ("test_digests.py", "test_a_manifest_is_loaded_by_its_digest"): (
        "archive-lab-d17",
        "delta-lab-d16",
        "delta-lab-d21",
        "archive-lab-d16",
    ),
    ("test_digests.py", "test_a_digest_that_the_source_lacks_is_refused"): ("docker",),
    ("test_kind.py", "test_the_drop_in_loads_the_same_images_as_kind"): ("0.27",),
    ("test_names.py", "test_an_image_id_loads_the_image_under_its_names"): (
        "12-docker",
        "64-podman",
        "71-docker",
    ),
    ("test_names.py", "test_an_untagged_image_can_be_loaded"): ("docker]",),
    ("test_peers.py", "test_kind_07_an_added_name_is_the_one_in_a_pod_spec"): (
        "docker.io/{}:v1",
        "localhost",
    ),
    ("test_push_tags.py", "test_a_leftover_tag_is_removed_through_another_address_of_the_engine"): (
        "docker]",
    ),
    ("test_remote.py", "test_a_watch_continues_after_its_ssh_process_has_ended"): ("lab-e21",),
    ("test_buildx.py", "test_skaffold_builds_with_a_builder_outside_the_engine"): (
        "docker]",
        "docker28-graphdriver",
        "podman",
    ),
    ("test_buildx.py", "test_outputs_of_buildkit_are_loaded"): (
        "docker buildx build --output",
        "docker buildx build -t app:dev --load",
        "attested",
        "zstd",
        "dated",
        "several names",
        "platforms",
    ),
    ("test_buildx.py", "test_an_ended_build_leaves_no_files"): ("9",),
    ("test_skaffold.py", "test_a_tag_by_id_never_refers_to_another_image"): ("docker]",),
    ("test_storage.py", "test_a_full_temporary_folder_causes_a_full_load"): ("docker-1m",),
    ("test_costs.py", "test_a_load_costs_no_more_than_in_the_table"): (
        "docker-lab-d3",
        "podman-lab-d21",
    ),
    ("test_rollback.py", "test_a_reused_loader_detects_another_snapshotter"): ("False",),
    ("test_cut_off.py", "test_an_engine_that_cannot_reach_the_receiver_is_detected_and_cached"): (
        "docker-cut-off",
    ),
    ("test_unsavable.py", "test_images_that_podman_cannot_save_together_are_sent_one_by_one"): (
        "archive",
    ),
    ("test_unsavable.py", "test_an_image_without_a_platform_is_loaded_for_every_platform"): (
        "docker]",
        "docker28",
    ),
    ("test_rollback.py", "test_a_failing_crictl_is_not_reported_as_a_missing_image"): (
        "prints nonsense",
    ),
    ("test_rollback.py", "test_another_import_of_the_same_image_keeps_the_name"): ("is whole",),
    ("test_rollback.py", "test_a_failed_load_restores_the_previous_image"): ("False",),
    ("test_verify.py", "test_a_loaded_image_is_verified"): ("docker]",),
    ("test_races.py", "test_a_load_works_without_a_cache_folder"): ("docker]",),
    (
        "test_registry_restart.py",
        "test_the_next_run_continues_after_a_script_killed_before_the_restart",
    ): ("disconnect",),
    ("test_complete.py", "test_a_base_in_another_form_stays_complete"): (
        "docker28-docker-lab-d21-import",
    ),
    ("test_manifests.py", "test_keep_manifest_keeps_the_digest_of_the_source"): ("import",),
    ("test_attacked.py", "test_a_load_succeeds_during_an_attack_on_the_receiver"): (
        "docker28, stranger",
    ),
}
_STARTS = [
    f"{file}::{test}[{variant}"
    for (file, test), variants in _VARIANTS.items()
    for variant in variants
]
_TESTS = ("test_unsavable.py::test_an_oci_manifest_that_podman_58_cannot_export_is_refused",)
SELDOM = ("test_lab.py::", *_TESTS, *_STARTS)
"""Prefixes of node IDs, including the lab's own tests: every other test uses the lab, too."""
