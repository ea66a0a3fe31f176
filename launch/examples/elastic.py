"""Horovod Elastic with a robust rule: a host dies, and the others train on.

    horovodrun -np 3 --min-np 2 --network-interface eth0 --host-discovery-script ./discover.sh \\
        python launch/examples/elastic.py

`discover.sh` prints the available hosts, one `name:slots` per line; `launch/discover_hosts.py HOSTS EXCLUDED`
does so without the hosts that a policy excluded (docs/launching.md). When a host is lost, at most the steps
since the last commit are lost with it. Set HOROVOD_GLOO_TIMEOUT_SECONDS=5 or so: a dead host is noticed
after that time, and a slow host has that time to answer.
"""

import argparse

import horovod.torch as hvd
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import horovod_byz as hb
from horovod_byz.training.data import load_dataset


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="mnist", help="mnist, fashion-mnist or digits (default: mnist)")
    parser.add_argument("--data-dir", default=None, help="folder of the data sets, in torchvision's layout")
    parser.add_argument("--batch-size", type=int, default=32, help="images per worker and step (default: 32)")
    parser.add_argument("--epochs", type=int, default=3, help="passes over the training set (default: 3)")
    parser.add_argument("--commit-every", type=int, default=10, help="steps between commits (default: 10)")
    parser.add_argument(
        "--excluded-hosts",
        default=None,
        help="exclude wrong workers, and write their hosts to this file for launch/discover_hosts.py",
    )
    return parser.parse_args()


def say(text):
    if hvd.rank() == 0:
        print(text, flush=True)


@hvd.elastic.run
def train(state, data, args):
    model, optimizer, sampler = state.model, state.optimizer, state.sampler
    loader = DataLoader(data, batch_size=args.batch_size, sampler=sampler)
    say(f"{hvd.size()} workers train from epoch {state.epoch}, step {state.step}")
    while state.epoch < args.epochs:
        for batch, (images, labels) in enumerate(loader):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            state.step += 1
            sampler.record_batch(batch, args.batch_size)
            if state.step % args.commit_every == 0:
                say(f"epoch {state.epoch}  step {state.step}  loss {loss.item():.4f}")
                state.commit()
        state.epoch += 1
        sampler.set_epoch(state.epoch)
        state.commit()


def main():
    args = arguments()
    hvd.init()
    torch.manual_seed(42)
    torch.set_num_threads(1)
    found = load_dataset(args.dataset, args.data_dir, normalise="standard")
    data = TensorDataset(found.train_x, found.train_y)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(found.train_x[0].numel(), 100), nn.ReLU(), nn.Linear(100, found.classes)
    )
    policy = None
    if args.excluded_hosts is not None:
        policy = hb.Policy("exclude", after=3, excluded_hosts=args.excluded_hosts, readmit_after=3600)
    optimizer = hb.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        named_parameters=model.named_parameters(),
        rule=hb.Median(),
        timeout=60,
        policy=policy,
    )
    sampler = hvd.elastic.ElasticSampler(data)
    state = hvd.elastic.TorchState(model=model, optimizer=optimizer, sampler=sampler, epoch=0, step=0)

    def reset():
        say(f"the workers until now:\n{optimizer.ledger}")
        optimizer.ledger = hb.Ledger()  # worker 1 may be another host from here on

    state.register_reset_callbacks([reset])
    train(state, data, args)
    model.eval()
    with torch.no_grad():
        correct = (model(found.test_x).argmax(1) == found.test_y).double().mean()
    say(f"done with {hvd.size()} workers  step {state.step}  accuracy {100 * correct:.2f} %")
    say(optimizer.ledger)


if __name__ == "__main__":
    main()
