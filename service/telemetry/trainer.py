"""What the training process tells."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class TrainerMetrics:
    """Its instruments."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        by_slice = ["lane", "strategy", "item_age"]
        self.impressions = Counter(
            "agerank_impressions_total", "Impressions whose window closed.", by_slice, registry=registry
        )
        self.clicks = Counter("agerank_clicks_total", "Clicks on those impressions.", by_slice, registry=registry)
        self.predicted_clicks = Counter(
            "agerank_predicted_clicks_total", "Sum of p_click at serving over them.", by_slice, registry=registry
        )
        self.score_sum = Counter(
            "agerank_score_sum_total", "Sum of the exploring score at serving over them.", by_slice, registry=registry
        )
        self.entries = Counter(
            "agerank_stream_entries_total", "Stream entries read, by stream.", ["stream"], registry=registry
        )
        self.lag = Gauge(
            "agerank_stream_lag_entries", "Entries after the trainer's position.", ["stream"], registry=registry
        )
        self.redated = Counter(
            "agerank_stream_redated_total",
            "Entries that had been dated far ahead of the server, and were dated anew.",
            ["stream"],
            registry=registry,
        )
        self.lost = Counter(
            "agerank_stream_lost_total",
            "Times that Redis was found not to hold what it had held: trimmed, emptied, restored.",
            ["stream", "reason"],
            registry=registry,
        )
        self.join = Counter(
            "agerank_join_total",
            "Events by what the join made of them: matched, duplicate, late, ignored, unknown_request, unknown_item; "
            "impressions evicted, and served records delayed or duplicate.",
            ["result"],
            registry=registry,
        )
        self.join_pending = Gauge(
            "agerank_join_pending", "Impressions waiting for their window to close.", registry=registry
        )
        self.dead_letters = Counter(
            "agerank_dead_letters_total", "Entries set aside, by reason.", ["code"], registry=registry
        )
        self.examples = Counter("agerank_examples_total", "Examples learned from.", registry=registry)
        self.steps = Counter("agerank_steps_total", "Optimiser steps.", registry=registry)
        self.loss = Gauge("agerank_loss", "Log loss of the last batch before learning from it.", registry=registry)
        self.refused = Counter(
            "agerank_trainer_refused_versions_total",
            "Versions passed over at start because they do not verify, by code.",
            ["code"],
            registry=registry,
        )
        self.publishes = Counter(
            "agerank_publishes_total",
            "Versions by result: published; refused by the guard; pinned: another one is; behind: a delta serves that "
            "knows more; failed.",
            ["result"],
            registry=registry,
        )
        self.publish_seconds = Histogram(
            "agerank_publish_seconds", "Time to write a version, by kind: full, delta.", ["kind"], registry=registry
        )
        self.published_bytes = Counter(
            "agerank_published_bytes_total",
            "Bytes written of versions, by kind: full, delta.",
            ["kind"],
            registry=registry,
        )
        self.published_version = Gauge("agerank_published_version", "Step last published.", registry=registry)
        self.log_errors = Counter(
            "agerank_trainer_log_errors_total", "Calls of Redis that failed, by reason.", ["reason"], registry=registry
        )
        self.log_unsafe = Gauge(
            "agerank_trainer_log_unsafe",
            "1 while the server's settings let it lose parts of the log.",
            registry=registry,
        )
        self.guard_refused = Counter(
            "agerank_guard_refused_total", "Versions that the guard kept aside, by reason.", ["code"], registry=registry
        )
        self.guard_refused_in_a_row = Gauge(
            "agerank_guard_refused_in_a_row", "Versions refused since the last one that was not.", registry=registry
        )
        self.guard_pcoc = Gauge(
            "agerank_guard_pcoc", "Predicted over observed clicks of the guard's window.", registry=registry
        )
        self.guard_normalised_entropy = Gauge(
            "agerank_guard_normalised_entropy",
            "Log loss of the guard's window over that of a constant, its click rate.",
            registry=registry,
        )
        self.log_up = Gauge("agerank_trainer_log_up", "1 while the trainer reaches Redis.", registry=registry)
