"""One file, overruled by the environment, overruled by arguments; and every fault said in words."""

import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import DEFAULT_STRATEGY, STRATEGIES, Settings, SettingsError, read


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No agerank.toml of whoever runs the tests; and what `read` puts into the environment goes with the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGERANK_CONFIG", "")


def test_everything_has_a_default() -> None:
    settings = read()
    assert settings == Settings()
    assert settings.strategies == STRATEGIES
    assert settings.checkpoints == Path("agerank-data/checkpoints/default")


def test_the_checkpoints_lie_in_the_folder_or_behind_the_url_by_lane() -> None:
    assert read().store == Path("agerank-data/checkpoints/default")
    assert read(lane="news", checkpoints_url="s3://bucket/a/").store == "s3://bucket/a/news"
    for wrong in ("bucket/a", "file:///a", "https://x"):
        with pytest.raises(SettingsError, match="checkpoints_url"):
            read(checkpoints_url=wrong)


def test_object_storage_without_obstore_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert read().checkpoints_url is None
    with pytest.raises(SettingsError, match=r"checkpoints_url: .* pip install 'agerank\[objects\]'$"):
        read(checkpoints_url="s3://bucket/a")


@pytest.mark.parametrize("token", ["hunter2", "hunter2 of some length\n", " " * 16])
def test_an_admin_token_that_is_short_or_cannot_be_sent_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(SettingsError, match="admin_token") as caught:
        read(admin_token=token)
    assert "hunter2" not in str(caught.value)
    assert "of some length" not in repr(read(admin_token="a token of some length"))


def test_the_file_then_the_environment_then_the_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('lane = "news"\nport = 1\nhost = "0.0.0.0"\ntraffic = { greedy = 0.5, age_ts = 0.5 }\n')
    monkeypatch.setenv("AGERANK_PORT", "2")
    monkeypatch.setenv("AGERANK_HOST", "::1")
    settings = read(file, host="127.0.0.1", port=None)
    assert (settings.lane, settings.port, settings.host) == ("news", 2, "127.0.0.1")
    assert settings.traffic == {"greedy": 0.5, "age_ts": 0.5}


def test_agerank_toml_of_the_folder_is_read_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGERANK_CONFIG")
    (tmp_path / "agerank.toml").write_text("seed = 4")
    assert read().seed == 4
    (tmp_path / "other.toml").write_text("seed = 5")
    monkeypatch.setenv("AGERANK_CONFIG", "other.toml")
    assert read().seed == 5


def test_structured_values_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGERANK_TRAFFIC", '{"random": 1.0}')
    monkeypatch.setenv("AGERANK_HIDDEN", "[8, 4, 2]")
    settings = read()
    assert (settings.traffic, settings.hidden) == ({"random": 1.0}, (8, 4, 2))


def test_a_named_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml does not exist"):
        read(Path("nowhere.toml"))


def test_that_is_so_for_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGERANK_CONFIG", "nowhere.toml")
    with pytest.raises(SettingsError, match=r"nowhere\.toml does not exist"):
        read()


def test_a_variable_that_is_not_json_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGERANK_TRAFFIC", "greedy=1")
    with pytest.raises(SettingsError, match="traffic"):
        read()


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("AGERANK_REDISURL", "redis_url"),
        ("AGERANK_PUBLISH_INTERVALS", "publish_interval_s"),
        ("AGERANK_TRAFFIC__GREEDY", "traffic"),
        ("agerank_prot", "port"),
    ],
)
def test_a_misspelt_variable_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, variable: str, nearest: str
) -> None:
    monkeypatch.setenv(variable, "redis://:hunter2@localhost")
    with pytest.raises(SettingsError) as caught:
        read()
    assert str(caught.value) == f"{variable.upper()}: there is no such setting; the nearest is {nearest}"


def test_what_kubernetes_says_about_services_named_like_ours_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ("AGERANK", "AGERANK_TRAINER", "AGERANK_ADMIN", "AGERANK_OTHER"):
        monkeypatch.setenv(f"{service}_SERVICE_HOST", "10.0.0.1")
        monkeypatch.setenv(f"{service}_SERVICE_PORT", "8000")
        monkeypatch.setenv(f"{service}_SERVICE_PORT_HTTP", "8000")
        monkeypatch.setenv(f"{service}_PORT", "tcp://10.0.0.1:8000")
        monkeypatch.setenv(f"{service}_PORT_8000_TCP", "tcp://10.0.0.1:8000")
        for part, said in {"PROTO": "tcp", "PORT": "8000", "ADDR": "10.0.0.1"}.items():
            monkeypatch.setenv(f"{service}_PORT_8000_TCP_{part}", said)
    assert read() == Settings()
    assert (read().port, read().trainer_port, read().admin_port) == (8000, 8001, 8002)
    monkeypatch.setenv("AGERANK_PORT", "8080")
    monkeypatch.setenv("AGERANK_TRAFFIC_SALT", "x_service_host=tcp://")
    assert (read().port, read().traffic_salt) == (8080, "x_service_host=tcp://")


def test_a_file_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_bytes(b'lane = "\xff"')
    with pytest.raises(SettingsError, match="not TOML"):
        read(tmp_path / "bad.toml")


def test_a_file_that_is_not_toml_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("port: 3")
    with pytest.raises(SettingsError, match="not TOML"):
        read(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 8080", "^prot: there is no such setting; the nearest is port$"),
        ("port = 70000", "port"),
        ('lane = "../other"', "lane"),
        ("swap_poll_s = 0", "swap_poll_s"),
        ("traffic = { greedy = 0.5 }", "^traffic: the shares must sum to 1, they sum to 0.5$"),
        ("traffic = { greedy = 1.5, age_ts = -0.5 }", "traffic.greedy"),
        ('default_strategy = "bandit"', "^settings: default_strategy or traffic name .*bandit"),
        ("traffic = { bandit = 1.0 }", "bandit"),
        ('engine = "tensorflow"', "engine"),
        ('strategies = { "../up" = { method = "greedy" } }', "strategies"),
        ('strategies = { "" = { method = "greedy" } }', "strategies"),
        ("strategies = {}", "^strategies: .* at least 1"),
        ("seed = 9223372036854775808", "seed"),
        ("attribution_window_s = inf", "attribution_window_s"),
        ("attribution_window_s = 1e300", "attribution_window_s"),
        ("learning_rate = inf", "learning_rate"),
        ('redis_url = "localhost:6379"', "redis_url"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(SettingsError, match=said):
        read(tmp_path / "wrong.toml")


def test_every_fault_gets_its_line(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("port = -1\nbatch_size = 0\n")
    with pytest.raises(SettingsError) as caught:
        read(tmp_path / "wrong.toml")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["port", "batch_size"]


@pytest.mark.parametrize(
    ("names", "default"),
    [
        (STRATEGIES, DEFAULT_STRATEGY),
        (("mine",), "mine"),
        (("mine", DEFAULT_STRATEGY), DEFAULT_STRATEGY),
    ],
)
def test_the_default_strategy_is_ours_or_the_only_one_unless_another_is_named(
    names: Iterable[str], default: str
) -> None:
    strategies = {name: {"method": "greedy"} for name in names}
    assert read(strategies=strategies).strategy_of_all() == default
    also = strategies | {"other": {"method": "greedy"}}
    assert read(strategies=also, default_strategy="other").strategy_of_all() == "other"


def test_among_several_of_one_s_own_none_is_chosen() -> None:
    settings = read(strategies={"mine": {"method": "greedy"}, "his": {"method": "random"}})
    with pytest.raises(SettingsError, match="^default_strategy: set it to one of his, mine,"):
        settings.strategy_of_all()


def test_the_password_of_redis_is_in_no_text() -> None:
    settings = read(redis_url="redis://:hunter2@localhost/0")
    assert "hunter2" not in f"{settings} {settings!r} {settings.model_dump_json()}"
    assert settings.redis_url.get_secret_value().startswith("redis://:hunter2@")


@pytest.mark.parametrize("url", ["redis://:hunt/er2@localhost/0", "redis://:hunt#er2@localhost/0", "hunter2@localhost"])
def test_nor_is_it_in_the_text_about_a_wrong_url(url: str) -> None:
    with pytest.raises(SettingsError, match="redis_url") as caught:
        read(redis_url=url)
    assert "hunt" not in str(caught.value)


def test_a_feature_spec_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    with pytest.raises(SettingsError, match=r"features: cannot read .*spec\.toml: No such file or directory"):
        Settings(features=spec).feature_text()
    spec.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=r"features: cannot read .*spec\.toml: .*utf-8"):
        Settings(features=spec).feature_text()


def test_they_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read().port = 1
