"""`horovod-byz theory`: the papers' theorems as calculators."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(no_args_is_help=True, help="Calculate what the papers' theorems promise.")

Workers = Annotated[int, typer.Option("--n", "--p", min=1, help="Workers.")]
Byzantine = Annotated[int, typer.Option("--f", "--q", min=0, help="Byzantine workers among them.")]


@app.command()
def recommend(n: Workers, f: Byzantine) -> None:
    """Say which rule to take for n workers of which f may be Byzantine, and how every rule fares."""
    from horovod_byz import theory

    found = theory.recommend(n, f)
    table = Table("rule", "holds", "condition", "largest f", "threat", "cost", "eta")
    for one in found.options:
        holds = "yes" if one.tolerates else "no"
        eta = "-" if one.eta is None else f"{one.eta:.4f}"
        table.add_row(one.rule, holds, one.condition, str(one.max_byzantine), one.threat, one.cost, eta)
    console = Console()
    console.print(table)
    console.print(f"{found.rule or 'none'}: {found.reason}", highlight=False)


@app.command()
def detox(
    n: Workers, f: Byzantine, r: Annotated[int, typer.Option(min=1, help="Replicas, odd.")] = 3
) -> None:
    """Count the Byzantine votes that redundancy groups of r leave."""
    from horovod_byz.theory import detox as found

    table = Table("quantity", "value", title=f"DETOX, n = {n}, f = {f}, r = {r}", title_justify="left")
    table.add_row("votes", str(n // r))
    table.add_row("expected Byzantine votes, exact", f"{found.expected_byzantine_votes(n, f, r):.6f}")
    for votes, share in enumerate(found.byzantine_votes_pmf(n, f, r)):
        table.add_row(f"probability of {votes}", f"{share:.6f}")
    table.add_row("bound of Theorem 1", f"{found.byzantine_votes_bound(n, f, r):.4f}")
    table.add_row("worst case", str(found.worst_case_byzantine_votes(n, f, r)))
    table.add_row("r that Corollary 2 asks for", "-" if f < 1 else str(found.smallest_redundancy(f)))
    groups = found.required_vote_groups(0.5)
    holds = "holds" if groups <= n // r else f"not applicable: there are {n // r} votes"
    table.add_row("vote groups that Theorem 3 asks for (delta = 1/2)", f"{groups:.1f} ({holds})")
    Console().print(table)


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
    from horovod_byz.theory import resilience as found

    constants = found.etas(n, f)
    if rule not in constants:
        raise typer.BadParameter(f"no theorem is known for {rule!r}: choose one of {', '.join(constants)}")
    eta = constants[rule]
    if eta is None:
        typer.echo(f"{rule}: not applicable for n = {n}, f = {f}")
        return
    angle = found.resilience_angle(eta, d, sigma, norm)
    told = "assumption violated (sin alpha >= 1)" if angle is None else f"alpha = {angle:.4f} rad"
    typer.echo(f"{rule}: eta = {eta:.4f}, sin alpha = {found.sin_alpha(eta, d, sigma, norm):.4f}, {told}")
