"""The papers' tables: which strategies stand in them, under which settings of ours, and what the papers report.

References:
    [1] Wu et al. 2021, arXiv:2112.11136: Tables 1 to 3, total clicks on Yahoo! R6B; both versions print the same.
    [2] "GuideBoot: Guided Bootstrap for Deep Contextual Bandits", WWW 2021, arXiv:2107.08383: Tables 3 and 4, average
        reward on Tencent Ads A, with experience replay and online.
    [3] Guo et al. 2020, "Deep Bayesian Bandits", arXiv:2008.00727, and [4] Taboola 2018: no numbers in our copies.
    [5] "Pluggable Deep Thompson Sampling", SDM 2023: total clicks on the same log under the same protocol as [1].
"""

from typing import Any

from scripts.report_rows import (
    AGE_TS,
    AGE_UCB,
    BARE_EPSILON,
    BARE_GREEDY,
    EPSILON,
    GREEDY,
    ITEM_LAPLACE,
    ITEM_POSTERIOR,
    Row,
    Table,
    age,
    age_ucb,
    decayed,
    ucb,
)

TABLE_1 = Table(
    title="AGE paper, Table 1",
    unit="clicks, R6B",
    reference="greedy",
    world="r6b",
    rows=(
        Row(label="random", options={"method": "random"}, paper=26213.0, again=13324.0),
        GREEDY,
        Row(label="epsilon-greedy", options=EPSILON, paper=42540.0, again=20385.0),
        Row(label="Ensemble-TS", options={"method": "ensemble"}, paper=43429.0, again=20372.0),
        Row(label="Ensemble-UCB", options=ucb("ensemble"), paper=31986.0, again=14872.0),
        Row(label="GP-TS", options={"method": "gaussian_process", "lambda": 0.3}, paper=44070.0, again=20377.0),
        Row(label="GP-UCB", options=ucb("gaussian_process", **{"lambda": 0.3}), paper=36192.0, again=18923.0),
        Row(label="gradient-TS", options={"method": "gradient"}, paper=46830.0, again=23227.0),
        Row(label="gradient-UCB", options=ucb("gradient"), paper=37655.0, again=17362.0),
        Row(
            label="UR-gradient-TS",
            options={"method": "underestimation", "impressions": 100.0},
            paper=47540.0,
            again=22052.0,
        ),
        Row(label="UR-gradient-UCB", options=ucb("underestimation", impressions=100.0), paper=41510.0, again=19477.0),
        AGE_TS,
        AGE_UCB,
        Row(label="PlugTS [5]", options={"method": "plug_ts", "lambda": 100.0}, paper=52381.8),
        Row(label="PlugTS-P [5]", options={"method": "plug_ts", "covariance": "none", "lambda": 3.0}, paper=53897.8),
        ITEM_LAPLACE,
        ITEM_POSTERIOR,
    ),
)

TABLE_2 = Table(
    title="AGE paper, Table 2: what AGE loses without its parts",
    unit="clicks, R6B",
    reference="AGE-TS",
    world="r6b",
    rows=(
        GREEDY,
        AGE_TS,
        AGE_UCB,
        Row(label="AGE without dy", options=age(uncertainty="gaussian"), paper=45677.0),
        Row(label="AGE without g", options=age(direction="ones"), paper=44638.0),
        Row(label="AGE-TS without gate", options=age(gate="none"), paper=47387.0),
        Row(label="AGE-UCB without gate", options=age_ucb(gate="none"), paper=38327.0),
        Row(label="threshold 0.02", options=age(gate="fixed", gate_threshold=0.02), paper=47328.2),
        Row(label="threshold 0.01", options=age(gate="fixed", gate_threshold=0.01), paper=48263.8),
        Row(label="threshold 0.005", options=age(gate="fixed", gate_threshold=0.005), paper=47596.8),
    ),
)

TABLE_3 = Table(
    title="AGE paper, Table 3: the direction of the step",
    unit="clicks, R6B",
    reference="FGM",
    world="r6b",
    rows=(
        GREEDY,
        Row(label="FGM", options=age(direction="fgm"), paper=48698.2),
        Row(label="PGD", options=age(), paper=50111.0),
        Row(label="PGD, projected", options=age(pgd="projected")),
    ),
)

GUIDEBOOT = Table(
    title="GuideBoot paper, Tables 3 and 4",
    unit="reward, Tencent A, replay",
    reference="epsilon-greedy",
    world="ads_a",
    rows=(
        BARE_GREEDY,
        Row(label="epsilon-greedy", options={"method": "epsilon_greedy"}, paper=0.0248, again=0.0289),
        Row(label="epsilon-greedy, decayed", options=decayed(20_000), paper=0.0260, again=0.0293),
        Row(label="Deep-TS-Beta", options={"method": "deep_ts_beta"}, paper=0.0262, again=0.0295),
        Row(label="Deep-UCB1", options={"method": "deep_ucb1"}, paper=0.0222, again=0.0243),
        Row(label="MC-Dropout", options={"method": "mc_dropout"}, paper=0.0245, again=0.0297),
        Row(label="Bootstrap", options={"method": "bootstrap"}, paper=0.0264),
        Row(label="Giro", options={"method": "giro"}, paper=0.0249),
        Row(label="GuideBoot", options={"method": "guideboot"}, paper=0.0280),
        Row(label="Online bootstrap", options={"method": "online_bootstrap"}, again=0.0302),
        Row(label="Online GuideBoot", options={"method": "online_guideboot"}, again=0.0317),
        Row(label="AGE-TS", options=age()),
        ITEM_LAPLACE,
    ),
)

GLM = Table(
    title="GuideBoot paper, Figure 3: the synthetic task (the paper ranks them; it prints no numbers)",
    unit="-",
    reference="epsilon-greedy",
    world="glm",
    rows=(
        BARE_GREEDY,
        BARE_EPSILON,
        Row(label="epsilon-greedy, decayed", options=decayed(5_000)),
        Row(label="GLM-UCB", options={"method": "glm_ucb"}),
        Row(label="TS-BLR", options={"method": "ts_blr"}),
        Row(label="Bootstrap", options={"method": "bootstrap"}),
        Row(label="Online bootstrap", options={"method": "online_bootstrap"}),
        Row(label="Giro", options={"method": "giro"}),
        Row(label="GuideBoot", options={"method": "guideboot", "guidance": "fields"}),
        Row(label="Online GuideBoot", options={"method": "online_guideboot", "guidance": "fields"}),
        Row(label="AGE-TS", options=age()),
        ITEM_LAPLACE,
        ITEM_POSTERIOR,
    ),
)

HYBRID = Table(
    title="Deep Bayesian Bandits: dropout and heads",
    unit="-",
    reference="greedy",
    world="r6b",
    rows=(
        BARE_GREEDY,
        Row(label="full dropout TS", options={"method": "mc_dropout", "dropout": "full"}),
        Row(label="full dropout UCB", options={"method": "mc_dropout", "dropout": "full", "uncertainty": "ucb"}),
        Row(label="hybrid TS", options={"method": "mc_dropout"}),
        Row(label="hybrid UCB", options=ucb("mc_dropout")),
        Row(label="multi-head TS", options={"method": "multi_head"}),
        Row(label="multi-head UCB", options=ucb("multi_head")),
        Row(label="bootstrap of 5 models", options={"method": "online_bootstrap"}),
        Row(label="AGE-TS, last layer", options=age(dropout="last_layer")),
    ),
)

THROUGHPUT = Table(
    title="Taboola: items that left their exploration phase",
    unit="-",
    reference="greedy",
    world="r6b",
    rows=(
        BARE_GREEDY,
        Row(label="random", options={"method": "random"}),
        BARE_EPSILON,
        Row(label="UCB on counts", options={"method": "count_ucb"}),
        Row(label="DDN-UCB", options={"method": "density"}),
        Row(label="AGE-TS", options=age()),
        Row(label="AGE-UCB", options=age_ucb()),
        ITEM_LAPLACE,
        ITEM_POSTERIOR,
    ),
    throughput=True,
)

EVERYWHERE = Table(
    title="What is recommended, in every world",
    unit="-",
    reference="greedy",
    world="r6b",
    rows=(
        BARE_GREEDY,
        Row(label="random", options={"method": "random"}),
        BARE_EPSILON,
        Row(label="AGE-TS", options=age()),
        ITEM_LAPLACE,
        ITEM_POSTERIOR,
    ),
)

_METHODS: dict[str, dict[str, Any]] = {
    "AGE-TS": age(),
    "AGE-UCB": age_ucb(),
    "MC-Dropout": {"method": "mc_dropout"},
    "Ensemble-TS": {"method": "ensemble"},
    "gradient-TS": {"method": "gradient"},
    "UR-gradient-TS": {"method": "underestimation"},
    "PlugTS": {"method": "plug_ts"},
    "item-Laplace": {"method": "item_laplace"},
    "item-posterior": {"method": "item_posterior"},
}

FRONTIER = Table(
    title="Clicks at equal cost: the controller holds the share of changed slots",
    unit="-",
    reference="greedy",
    world="r6b",
    rows=(
        BARE_GREEDY,
        *(
            Row(label=f"{name} at {budget:.0%}", options={**options, "budget": budget})
            for name, options in _METHODS.items()
            for budget in (0.02, 0.05, 0.1, 0.2)
        ),
    ),
    frontier=True,
)

TABLES = {
    "table1": TABLE_1,
    "table2": TABLE_2,
    "table3": TABLE_3,
    "guideboot": GUIDEBOOT,
    "glm": GLM,
    "hybrid": HYBRID,
    "throughput": THROUGHPUT,
    "everywhere": EVERYWHERE,
    "frontier": FRONTIER,
}
