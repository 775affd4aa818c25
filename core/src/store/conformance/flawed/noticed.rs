//! Which cases must fail on which flawed store.

use super::flaw::Flaw;

/// Which cases notice which flaw.
pub(super) const NOTICED: &[(Flaw, &[&str])] = &[
    (
        Flaw::TokenUnchecked,
        &[
            "fence::a_stale_token_changes_nothing",
            "fence::another_incarnation_changes_nothing",
            "fence::a_taken_agent_refuses_the_former_owner",
            "starts::failed_starts_are_counted_under_the_fence",
            "timers::only_the_owner_fires",
            "operations::only_the_owner_begins_and_ends",
            "random::random_sequences_equal_the_model",
        ],
    ),
    (
        Flaw::RevisionUnchecked,
        &[
            "fence::a_stale_revision_changes_nothing",
            "commit::another_unit_on_an_old_revision_is_stale",
            "random::random_sequences_equal_the_model",
        ],
    ),
    (
        Flaw::KeysForgotten,
        &[
            "accept::the_same_key_and_body_answers_what_is_stored",
            "accept::another_body_under_a_key_is_refused",
            "random::random_sequences_equal_the_model",
        ],
    ),
    (
        Flaw::SilenceIgnored,
        &["placing::only_waking_inputs_make_an_agent_runnable", "random::random_sequences_equal_the_model"],
    ),
    (
        Flaw::ScopesForgotten,
        &[
            "placing::a_newer_input_replaces_all_queued_ones_of_its_scope",
            "random::random_sequences_equal_the_model",
        ],
    ),
    (Flaw::ClaimsForgotten, &["agents::a_claim_stands_until_a_lower_host_comes"]),
    (
        Flaw::ReachIgnored,
        &[
            "edges::an_internal_agent_is_reached_from_inside",
            "edges::a_spec_decides_who_reaches_an_agent",
            "edges::only_neighbours_are_reached_when_that_is_asked",
        ],
    ),
    (
        Flaw::StampsForgotten,
        &[
            "accept::deliveries_follow_the_table",
            "accept::a_refused_delivery_changes_nothing",
            "accept::two_agents_of_one_name_are_told_apart",
            "handoff_rows::a_moved_inbox_remembers_what_it_accepted",
        ],
    ),
    (
        Flaw::AcknowledgedUnwritten,
        &["accept::an_accepted_input_is_stored_whole", "accept::seqs_are_admission_order_without_gaps"],
    ),
    (Flaw::FailuresSkipped, &["chain::the_first_failure_ends_the_chain"]),
    (
        Flaw::ExpiryIgnored,
        &[
            "sessions::a_buried_session_is_dead_for_ever",
            "leases::an_expired_session_holds_until_it_is_buried",
            "random::random_sequences_equal_the_model",
        ],
    ),
    (Flaw::AgentsMixed, &["agents::nothing_of_one_agent_shows_under_another"]),
    (
        Flaw::DeletesForgotten,
        &[
            "handoff_rows::deletes_travel_while_a_migration_is_open",
            "handoff_rows::a_transfer_in_rounds_equals_one_at_once",
            "standby::a_delete_travels_with_a_round",
        ],
    ),
    (
        Flaw::CopiesKept,
        &["handoff::a_discarded_copy_leaves_nothing", "handoff::a_discarded_copy_puts_its_tombstone_back"],
    ),
    (Flaw::EventsUnfiltered, &["events::events_are_read_after_a_cursor_by_agent_and_kind"]),
    (
        Flaw::OutputsKept,
        &[
            "outbox::an_acknowledged_output_is_gone",
            "outbox::an_undeliverable_output_is_kept_with_its_reason",
        ],
    ),
    (
        Flaw::TimerRevisionsIgnored,
        &["timers::a_timer_set_anew_is_another_timer", "random::random_sequences_equal_the_model"],
    ),
    (
        Flaw::BeginningsForgotten,
        &[
            "operations::a_later_owner_begins_again_what_may_be_done_again",
            "operations::operations_move_with_their_agent",
        ],
    ),
    (
        Flaw::NotDurable,
        &[
            "commit::what_was_answered_is_there_after_reopening",
            "leases::tokens_rise_across_releases_expiry_and_restarts",
            "handoff::each_home_survives_reopening",
        ],
    ),
    (Flaw::UpdatesTorn, &["auth::updates_at_once_all_count"]),
    (
        Flaw::PrunesTheYoung,
        &[
            "retention::ended_inputs_go_when_their_time_is_over",
            "retention::the_newest_dead_letters_stay",
            "random::random_sequences_equal_the_model",
        ],
    ),
    (
        Flaw::TokenKept,
        &[
            "lifecycle::a_reset_starts_the_next_generation_and_fences_the_former_owner",
            "lifecycle::a_deleted_agent_is_gone_and_keeps_its_numbers",
            "lifecycle::a_respawn_raises_the_token_alone",
            "random::random_sequences_equal_the_model",
        ],
    ),
    (
        Flaw::OpenInputsForgotten,
        &[
            "lifecycle::a_reset_starts_the_next_generation_and_fences_the_former_owner",
            "lifecycle::a_deleted_agent_is_gone_and_keeps_its_numbers",
            "lifecycle::a_broken_agent_retires_by_giving_up_its_inputs",
            "lifecycle::an_interrupt_ends_the_inputs_it_names",
            "random::random_sequences_equal_the_model",
        ],
    ),
    (Flaw::ChangesUntold, &["lifecycle::every_change_is_an_event_and_a_repetition_is_none"]),
    (
        Flaw::JournalForgotten,
        &[
            "journal::a_journaled_turn_is_in_the_image_with_its_inputs",
            "journal::two_snapshots_are_kept_with_the_journal_behind_the_older",
            "journal::the_journal_and_both_snapshots_move",
        ],
    ),
    (
        Flaw::OlderSnapshotsIgnored,
        &[
            "journal::two_snapshots_are_kept_with_the_journal_behind_the_older",
            "journal::a_checkpoint_goes_beside_the_newest_snapshot",
        ],
    ),
    (Flaw::SecretsExported, &["entity_keys::an_archive_has_the_public_half_and_an_import_another_key"]),
    (Flaw::LabelsOfNow, &["places::labels_are_those_of_the_moment"]),
    (
        Flaw::CountLeftBehind,
        &["places::the_count_moves_with_the_agent", "handoff::a_handoff_moves_an_agent_whole"],
    ),
    (Flaw::DeliveriesShuffled, &["channels::deliveries_come_together_and_in_order"]),
    (
        Flaw::ChannelsForgotten,
        &[
            "channels::a_subscriber_gets_what_is_published_until_it_leaves",
            "channels::tokens::a_token_lets_its_bearer_in_and_nobody_else",
            "channels::bounds::who_does_not_keep_up_ends_visibly",
        ],
    ),
];
