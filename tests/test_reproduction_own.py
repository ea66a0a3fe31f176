"""Experiments of one's own: no paper, every axis kept, worst-case heatmaps, mistakes named before training.

0.2.0: an experiment without `paper` trained everything and then ended with a KeyError, as a sweep without x
did; f was dropped from table and figure.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from typer.testing import CliRunner

from horovod_byz.cli.main import app
from horovod_byz.reproduction import compute as computing
from horovod_byz.reproduction import figures, heatmaps, own, reproduce
from horovod_byz.reproduction.artefact import Artefact
from horovod_byz.reproduction.catalogue import Catalogue
from horovod_byz.reproduction.compute import Workplace
from horovod_byz.reproduction.overview import reproduce_all
from horovod_byz.reproduction.series import Run, Series
from horovod_byz.training import config as configs
from horovod_byz.training.config import ConfigError
from test_reproduction_grid import Here

GRID = """
[base]
workers = 5
steps = 2
model = "mlp:width=4"
data = { name = "digits", batch = 4 }
[axes.rule]
Median = { rule = "median" }
"NNM + TM" = { rule = "pipeline:chain=nnm+trimmed-mean" }
[axes.attack]
SF = { attack = "sign-flip" }
IPM = { attack = "inner-product:epsilon=1.0" }
[axes.f]
1 = { byzantine = 1 }
2 = { byzantine = 2 }
[axes.heterogeneity]
IID = { data = { partition = "iid" } }
blocks = { data = { partition = "extreme" } }
"""


@pytest.fixture
def experiments(tmp_path, monkeypatch):
    monkeypatch.setattr(computing, "ProcessPoolExecutor", Here)
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "grid.toml").write_text(GRID)
    return tmp_path


def write(experiments, text, name="mine"):
    (experiments / f"{name}.toml").write_text(f'title = "Mine"\nruns = "grid"\n{text}')
    return Catalogue(experiments)


def series(value, **labels):
    config = configs.make({"workers": 5})
    record = {"summary": {"diverged_at": None}}
    metrics = [{"step": 0, "accuracy": 0.1, "loss": 2.3}, {"step": 2, "accuracy": value / 100, "loss": 1.0}]
    return Series(labels, (Run(labels, config, metrics, record),))


def made(**more):
    return Artefact.model_validate({"name": "mine", "title": "Mine", "runs": "grid", **more})


def test_without_a_paper_everything_is_kept_and_shown(experiments, tmp_path):
    write(experiments, '[[slices]]\nwhere = { attack = "IPM" }')
    command = ["reproduce", "mine", "--experiments", str(experiments), "--results", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, "--jobs", "1"])
    assert done.exit_code == 0, done.output
    for text in ("Median", "NNM + TM", "blocks", "accuracy (%)", "heterogeneity"):
        assert text in done.output
    page = (tmp_path / "out" / "mine" / "README.md").read_text()
    assert "The runs of the grid 'grid'." in page
    assert "| rule | f | heterogeneity | test accuracy (%)" in page
    assert sum(line.startswith(("| Median |", "| NNM + TM |")) for line in page.splitlines()) == 8
    assert "paper" not in page.replace("papers", "")
    assert (tmp_path / "out" / "mine" / "figure.png").is_file()
    overview = (tmp_path / "out" / "README.md").read_text()
    assert "## Experiments of one's own" in overview
    assert "[mine](mine/README.md)" in overview


def test_a_grid_gives_each_stage_of_a_pipeline_the_runs_f(experiments):
    cells = (
        write(experiments, "")
        .grid("grid")
        .select({"rule": "NNM + TM", "attack": "SF", "heterogeneity": "IID"})
    )
    assert [str(cell.config.rule) for cell in cells] == [
        f"pipeline:chain=nnm:f={f}+trimmed-mean:f={f}" for f in (1, 2)
    ]
    stated = configs.make({"rule": "pipeline:chain=nnm:f=1+krum", "byzantine": 3, "attack": "sign-flip"})
    assert str(stated.rule) == "pipeline:chain=nnm:f=1+krum:f=3"
    assert configs.make(stated.to_data()) == stated
    with pytest.raises(ConfigError, match="unknown rule 'krun'"):
        configs.make({"rule": "pipeline:chain=nnm+krun", "byzantine": 1, "attack": "sign-flip"})


def test_no_two_curves_share_a_panel_and_a_colour():
    shown = [
        series(50, rule=rule, attack=attack, f=f) for rule in "ab" for attack in "xy" for f in ("1", "2")
    ]
    artefact = own.completed(made(), shown)
    assert artefact.table.rows == ("rule", "attack", "f")
    panels, lines = artefact.figure.panels, artefact.figure.lines
    places = [(part.labels[lines], *(part.labels[axis] for axis in panels)) for part in shown]
    assert len(set(places)) == len(shown)
    assert set(figures._groups(shown, panels)) == {(attack, f) for attack in "xy" for f in ("1", "2")}


def test_what_the_file_places_stays_and_a_papers_is_left_alone():
    shown = [series(50, attack=attack, f=f, same="x") for attack in "xy" for f in ("1", "2")]
    stated = {
        "table": {"rows": ["attack"], "columns": ["f"]},
        "figure": {"kind": "sweep", "x": "f", "lines": "attack"},
    }
    artefact = own.completed(made(**stated), shown)
    assert (artefact.table.rows, artefact.table.columns) == (("attack",), ("f",))
    assert artefact.figure.panels == ()
    assert own.completed(made(), shown).figure.lines == "attack"  # there is no axis "rule"
    assert own.completed(made(), shown[:1]).table.rows == ("attack",)  # nothing varies
    papers = made(paper="all", shows="Nothing")
    assert own.completed(papers, shown) is papers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[figure]\nkind = "sweep"', "figure: a figure of the kind 'sweep' needs x: name an axis"),
        ('[figure]\nkind = "heatmap"\nx = "f"', "kind 'heatmap' needs y"),
        ('[figure]\nkind = "pairs"', "kind 'pairs' needs x"),
        ('[figure]\nkind = "sweep"\nx = "ff"', "figure.x: unknown axis 'ff': did you mean 'f'"),
        ('[figure]\npanels = ["atack"]', "figure.panels: unknown axis 'atack': did you mean 'attack'"),
        ('[table]\nrows = ["rul"]', "table.rows: unknown axis 'rul': did you mean 'rule'"),
        ('[figure]\nkind = "heatmap"\nx = "f"\ny = "rule"\nworst = "atack"', "figure.worst: unknown axis"),
        ('paper = "mine"', "unknown paper 'mine': .*or leave paper out for an experiment of your own"),
        ('paper = "all"', "it shows nothing: name a grid"),
    ],
)
def test_mistakes_end_it_before_anything_is_trained(experiments, tmp_path, monkeypatch, text, message):
    monkeypatch.setattr(reproduce, "compute", lambda *arguments: pytest.fail("trained first"))
    write(experiments, text)
    command = ["reproduce", "mine", "--experiments", str(experiments), "--results", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2, done.output
    assert re.search(message, " ".join(done.output.split())), done.output
    assert "Value error" not in done.output


def test_another_files_mistake_is_named_before_training_too(experiments, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "compute", lambda *arguments: pytest.fail("trained first"))
    write(experiments, "")
    write(experiments, '[figure]\nkind = "sweep"', name="other")
    place = Workplace(tmp_path / "out", jobs=1)
    with pytest.raises(ConfigError, match=r"other\.toml: figure: .*needs x"):
        reproduce_all(["mine"], Catalogue(experiments), place)


HEAT = {"kind": "heatmap", "x": "f", "y": "skew"}


def test_a_cell_is_the_worst_case_over_attacks():
    values = {("1", "iid", "x"): 90, ("1", "iid", "y"): 70, ("2", "iid", "x"): 30, ("2", "iid", "y"): 60}
    shown = [
        series(value, rule="a", f=f, skew=skew, attack=attack) for (f, skew, attack), value in values.items()
    ]
    shown.append(series(10, rule="b", f="1", skew="iid", attack="x"))
    artefact = own.completed(made(figure=HEAT), shown)
    assert artefact.figure.panels == ("rule",)
    cells = heatmaps.worst_cases(artefact, shown)
    assert cells["a", "iid", "1"] == heatmaps.Worst(pytest.approx(70.0), "y", 2)
    assert cells["a", "iid", "2"] == heatmaps.Worst(pytest.approx(30.0), "x", 2)
    assert ("b", "iid", "2") not in cells
    table = heatmaps.table(artefact, shown)
    assert table[2:] == [
        "| rule | skew | f = 1 | f = 2 |",
        "| --- | --- | --- | --- |",
        "| a | iid | 70.0 (y) | 30.0 (x) |",
        "| b | iid | 10.0 (x) |  |",
    ]
    loss = own.completed(made(figure=HEAT, metric="loss"), shown)
    assert heatmaps.worst_cases(loss, shown)["a", "iid", "1"].value == 1.0


def test_a_learning_rate_is_chosen_against_the_worst_attack():
    values = {("0.1", "x"): 90, ("0.1", "y"): 20, ("0.5", "x"): 60, ("0.5", "y"): 55}
    shown = [series(v, f="1", skew="iid", lr=lr, attack=attack) for (lr, attack), v in values.items()]
    artefact = own.completed(made(figure={**HEAT, "best": "lr"}), shown)
    assert artefact.figure.panels == ()
    assert heatmaps.worst_cases(artefact, shown)["iid", "1"] == heatmaps.Worst(
        pytest.approx(55), "y", 2, "0.5"
    )
    table = heatmaps.table(artefact, shown)
    assert table[0] == "The worst case over attack, at the lr whose worst case is best, test accuracy (%):"
    assert table[-1] == "| iid | 55.0 (y, lr = 0.5) |"


def test_a_heatmap_is_drawn_alike_each_time(tmp_path):
    shown = [series(50.0 + i, f=str(i % 2), skew=str(i // 2), attack="x") for i in range(4)]
    artefact = own.completed(made(figure=HEAT), shown)
    for name in ("one.png", "two.png"):
        heatmaps.draw(artefact, shown, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    lost = [series(np.nan, f="1", skew="0", attack="x"), *shown]
    heatmaps.draw(own.completed(made(figure=HEAT, metric="loss"), lost), lost, tmp_path / "loss.png")


def test_the_page_of_a_heatmap_has_both_tables(experiments, tmp_path):
    catalogue = write(
        experiments,
        '[figure]\nkind = "heatmap"\nx = "f"\ny = "heterogeneity"\n[[slices]]\nwhere = { rule = "Median" }',
    )
    shown = reproduce.reproduce(catalogue.artefact("mine"), catalogue, Workplace(tmp_path / "out", jobs=1))
    page = reproduce.page(shown)
    assert "The worst case over attack, test accuracy (%):" in page
    assert "| heterogeneity | f = 1 | f = 2 |" in page
    assert "| rule | attack | f | heterogeneity |" in page
    assert "Lines are means" not in page
