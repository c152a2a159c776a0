"""What the scoring process tells."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from service.telemetry.kinds import ArrayHistogram, Owed

#: 0.25 ms to 2.5 s: ranking is milliseconds, a stall is what an operator looks for.
LATENCY_BUCKETS = (0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
FRESHNESS_BUCKETS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
BATCH_ROWS_BUCKETS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
BATCH_REQUESTS_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
CANDIDATE_BUCKETS = (1, 5, 10, 20, 50, 100, 200, 450, 1000, 2000)
UNCERTAINTY_BUCKETS = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
STAGES = ("decode", "encode", "score", "respond")


class ScorerMetrics:
    """Its instruments."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.owed = Owed(registry)
        self.requests = Counter("agerank_requests_total", "Requests answered.", ["route", "status"], registry=registry)
        self.latency = Histogram(
            "agerank_request_seconds",
            "Time from a request's arrival to its answer, by route.",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.stage = ArrayHistogram(
            "agerank_rank_stage_seconds",
            "Time of one stage of POST /v1/rank: decode, encode, score, respond.",
            "stage",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.candidates = Histogram(
            "agerank_rank_candidates", "Candidates per request.", buckets=CANDIDATE_BUCKETS, registry=registry
        )
        self.in_flight = Gauge("agerank_requests_in_flight", "Requests being answered.", registry=registry)
        self.shed = Counter("agerank_shed_total", "Requests refused unread, by reason.", ["reason"], registry=registry)
        self.slots = Counter(
            "agerank_slots_total", "Slots filled, by lane and strategy.", ["lane", "strategy"], registry=registry
        )
        self.changed_slots = Counter(
            "agerank_exploration_changed_slots_total",
            "Slots that hold another candidate than greedy would have put there.",
            ["lane", "strategy"],
            registry=registry,
        )
        self.gate = Counter(
            "agerank_gate_total", "Candidates scored, by what the gate said.", ["strategy", "open"], registry=registry
        )
        self.uncertainty = ArrayHistogram(
            "agerank_uncertainty",
            "Absolute prediction uncertainty |dy| of the shown candidates whose gate was open.",
            "strategy",
            buckets=UNCERTAINTY_BUCKETS,
            registry=registry,
        )
        self.delta = ArrayHistogram(
            "agerank_score_delta",
            "Absolute change |score - p_click| of the shown candidates.",
            "strategy",
            buckets=UNCERTAINTY_BUCKETS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "agerank_batch_rows",
            "Candidates of one batch of the torch engine.",
            buckets=BATCH_ROWS_BUCKETS,
            registry=registry,
        )
        self.batch_requests = Histogram(
            "agerank_batch_requests",
            "Requests of one batch of the torch engine.",
            buckets=BATCH_REQUESTS_BUCKETS,
            registry=registry,
        )
        self.batch_wait = Histogram(
            "agerank_batch_wait_seconds",
            "Time from a request's entry in the torch engine's queue to the start of its batch.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.batch_dropped = Counter(
            "agerank_batch_dropped_total",
            "Requests given up in the torch engine's queue, for their deadline or by their caller: never computed.",
            registry=registry,
        )
        self.lambda_ = Gauge("agerank_lambda", "Exploration strength in use.", ["lane", "strategy"], registry=registry)
        self.events = Counter(
            "agerank_events_total", "Events posted, by type and result.", ["type", "result"], registry=registry
        )
        self.served_records = Counter(
            "agerank_served_records_total",
            "Served records by result: written, dropped (the queue was full or the process stopped).",
            ["result"],
            registry=registry,
        )
        self.served_queue = Gauge(
            "agerank_served_queue_entries", "Served records waiting for Redis.", registry=registry
        )
        self.items = Gauge("agerank_items", "Items in the store.", registry=registry)
        self.item_writes = Counter(
            "agerank_item_writes_total",
            "Items put or deleted through this scorer, by result.",
            ["result"],
            registry=registry,
        )
        self.item_updates = Counter(
            "agerank_item_updates_total",
            "Items read from Redis, by result: stored, deleted, or left out: full, misfit, unreadable.",
            ["result"],
            registry=registry,
        )
        self.items_rebuild = Histogram(
            "agerank_items_rebuild_seconds",
            "Time to read all items, by reason: start, trimmed (changes were gone before they were read), restored.",
            ["reason"],
            buckets=FRESHNESS_BUCKETS,
            registry=registry,
        )
        self.items_lag = Gauge(
            "agerank_items_lag_seconds",
            "Between the last change of an item in the store and the newest there is.",
            registry=registry,
        )
        self.log_errors = Counter(
            "agerank_log_errors_total", "Calls of Redis that failed, by reason.", ["reason"], registry=registry
        )
        self.log_up = Gauge("agerank_log_up", "1 while the scorer reaches Redis.", registry=registry)
        self.model = Info("agerank_model", "The version being served.", ["lane"], registry=registry)
        self.model_version = Gauge("agerank_model_version", "Step of the served model.", ["lane"], registry=registry)
        self.model_data_timestamp = Gauge(
            "agerank_model_data_timestamp_seconds",
            "Newest event that the served model contains, Unix time; its age is time() minus this.",
            ["lane"],
            registry=registry,
        )
        self.swaps = Counter(
            "agerank_swaps_total", "Versions swapped in or refused, by result.", ["lane", "result"], registry=registry
        )
        self.swap_seconds = Histogram(
            "agerank_swap_seconds",
            "Load and verification of a version, by kind: full, delta.",
            ["lane", "kind"],
            registry=registry,
        )
        self.event_to_serving = Histogram(
            "agerank_event_to_serving_seconds",
            "From the newest event that a version contains to its being served.",
            ["lane"],
            buckets=FRESHNESS_BUCKETS,
            registry=registry,
        )
        self.click_to_serving = ArrayHistogram(
            "agerank_click_to_serving_seconds",
            "From a click to the first model that learned from it being served.",
            "lane",
            buckets=FRESHNESS_BUCKETS,
            registry=registry,
        )
