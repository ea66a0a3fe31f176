"""`horovod-byz theory`: the papers' theorems as calculators."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.table import Table

from horovod_byz.common.terminal import console

app = typer.Typer(no_args_is_help=True, help="Calculate what the papers' theorems promise.")

Workers = Annotated[int, typer.Option("--n", "--p", min=1, help="Workers.")]
Byzantine = Annotated[int, typer.Option("--f", "--q", min=0, help="Byzantine workers among them.")]


@app.command()
def recommend(
    n: Workers,
    f: Byzantine,
    r: Annotated[int, typer.Option(min=1, help="Replicas per batch, for DETOX; 1 leaves it out.")] = 3,
) -> None:
    """Recommend a rule for n workers of which f may be Byzantine, and compare all rules."""
    from horovod_byz import theory

    advice = theory.recommend(n, f, r)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("rule", no_wrap=True)
    for heading in ("holds", "condition", "largest f", "threat", "cost", "eta"):
        table.add_column(heading)
    for option in (*advice.options, *advice.redundant):
        holds = "yes" if option.tolerates else "no"
        eta = "-" if option.eta is None else f"{option.eta:.4f}"
        most = "-" if option.largest_f < 0 else str(option.largest_f)
        table.add_row(option.rule, holds, option.condition, most, option.threat, option.cost, eta)
    screen = console()
    screen.print(table)
    screen.print(f"{advice.rule or 'none'}: {advice.reason}", highlight=False)


@app.command()
def detox(
    n: Workers,
    f: Byzantine,
    r: Annotated[int, typer.Option(min=1, help="Replicas, odd.")] = 3,
    b: Annotated[int, typer.Option(min=0, help="Batch of a step; 0 means 32 samples per worker.")] = 0,
    k: Annotated[int, typer.Option(min=0, help="Vote groups; 0 means a third of the votes.")] = 0,
    delta: Annotated[float, typer.Option(help="Allowed probability of failure, below 1/2.")] = 0.1,
    runs: Annotated[int, typer.Option(min=0, help="Partitions to draw and vote in; 0 means none.")] = 1000,
) -> None:
    """Count the Byzantine votes that redundancy groups of r leave, and check the theorems' conditions."""
    from horovod_byz.theory import detox as theorems

    try:
        votes, expected = n // r, theorems.expected_byzantine_votes(n, f, r)
        bound = theorems.oracle_bound(n, f, r, b or 32 * n, delta)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    b, k = b or 32 * n, k or max(votes // 3, 1)
    drawn = theorems.simulated_votes(n, f, r, runs)
    table = Table("quantity", "value", title=f"DETOX, n = {n}, f = {f}, r = {r}", title_justify="left")
    table.add_row("votes", str(votes))
    table.add_row("expected Byzantine votes, exact", f"{expected:.6f}")
    if runs:
        mean = sum(count * share for count, share in enumerate(drawn))
        table.add_row(f"the same in {runs} partitions that were drawn and voted in", f"{mean:.6f}")
    for count, share in enumerate(theorems.byzantine_votes_pmf(n, f, r)):
        table.add_row(
            f"probability of {count}", f"{share:.6f}" + (f" (drawn: {drawn[count]:.3f})" * bool(runs))
        )
    table.add_row("worst case", str(theorems.worst_case_byzantine_votes(n, f, r)))
    table.add_row("bound of Theorem 1", f"{theorems.byzantine_votes_bound(n, f, r):.4f}")
    table.add_row(*_corollary_2(f, r, delta))
    groups = theorems.required_vote_groups(0.5)
    holds = "holds" if groups <= votes else f"not applicable: there are {votes} votes"
    table.add_row("vote groups that Theorem 3 asks for (delta = 1/2)", f"{groups:.1f} ({holds})")
    table.add_row(f"Theorem 3 at delta = {delta:g}", str(bound))
    share = theorems.vote_variance(n, r, b)
    table.add_row(f"variance of a vote, b = {b}", f"sigma^2 / {1 / share:g}")
    table.add_row(
        f"variance of a mean vote group, k = {k}", f"sigma^2 / {1 / theorems.vote_group_variance(k, b):g}"
    )
    console().print(table)


def _corollary_2(f: int, r: int, delta: float) -> tuple[str, str]:
    from horovod_byz.theory import detox as theorems

    if f < 1:
        return "Corollary 2", "not applicable: no Byzantine worker"
    needed = theorems.required_redundancy(f)
    asked = f"r >= {needed:.2f}, so {theorems.smallest_redundancy(f)}"
    if r < needed - 1e-12:
        return "Corollary 2", f"not applicable: it asks for {asked}"
    return "Corollary 2", f"at most {theorems.byzantine_votes_tail(delta):.2f} with probability {1 - delta:g}"


@app.command()
def resilience(
    rule: Annotated[str, typer.Option(help="Such as krum.")],
    n: Workers,
    f: Byzantine,
    d: Annotated[int, typer.Option(min=1, help="Coordinates.")] = 1,
    sigma: Annotated[float, typer.Option(help="Standard deviation of a gradient's coordinate.")] = 1.0,
    norm: Annotated[float, typer.Option(help="Length of the true gradient.")] = 1.0,
) -> None:
    """Give a rule's resilience constant and angle (Xie et al. 2018)."""
    from horovod_byz.theory import resilience as theorems

    constants = theorems.etas(n, f)
    if rule not in constants:
        raise typer.BadParameter(f"no theorem is known for {rule!r}: choose one of {', '.join(constants)}")
    eta = constants[rule]
    if eta is None:
        typer.echo(f"{rule}: not applicable for n = {n}, f = {f}")
        return
    angle = theorems.resilience_angle(eta, d, sigma, norm)
    alpha = "assumption violated (sin alpha >= 1)" if angle is None else f"alpha = {angle:.4f} rad"
    typer.echo(f"{rule}: eta = {eta:.4f}, sin alpha = {theorems.sin_alpha(eta, d, sigma, norm):.4f}, {alpha}")
