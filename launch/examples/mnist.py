"""Horovod's usual PyTorch loop on MNIST; the two lines that make it robust are marked.

    horovodrun -np 4 python launch/examples/mnist.py --epochs 1

The data set is looked for in --data-dir, then in the folder that HOROVOD_BYZ_DATA names. While it trains, a
worker that sends something wrong is named on the screen, and in the file runs/mnist/ledger.jsonl.
"""

import argparse

import horovod.torch as hvd
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import horovod_byz as hb  # changed line 1 of 2
from horovod_byz.training.data import load_dataset

init, rank, size = hvd.init, hvd.rank, hvd.size


def broadcast(model):
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)


def add_up(totals):
    return hvd.allreduce(totals, name="test", op=hvd.Sum)


# From here on mnist.py and mnist_torchrun.py are equal.


class Net(nn.Module):
    """Two convolutions and two linear layers."""

    def __init__(self, shape, classes):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(shape[0], 10, kernel_size=5, padding=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(10, 20, kernel_size=5, padding=2),
            nn.Dropout2d(0.25),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
        )
        width = 20 * (shape[1] // 4) * (shape[2] // 4)
        self.head = nn.Sequential(nn.Linear(width, 50), nn.ReLU(), nn.Dropout(0.25), nn.Linear(50, classes))

    def forward(self, x):
        return self.head(self.features(x))


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="mnist", help="mnist, fashion-mnist or digits (default: mnist)")
    parser.add_argument("--data-dir", default=None, help="folder of the data sets, in torchvision's layout")
    parser.add_argument("--batch-size", type=int, default=64, help="images per worker and step (default: 64)")
    parser.add_argument("--epochs", type=int, default=3, help="passes over the training set (default: 3)")
    parser.add_argument("--lr", type=float, default=0.02, help="learning rate (default: 0.02)")
    parser.add_argument("--momentum", type=float, default=0.9, help="SGD momentum (default: 0.9)")
    parser.add_argument("--seed", type=int, default=42, help="random seed (default: 42)")
    parser.add_argument("--log-interval", type=int, default=50, help="steps between log lines (default: 50)")
    parser.add_argument(
        "--ledger",
        default="runs/mnist",
        help='folder of the ledger, or "" for none (default: runs/mnist)',
    )
    parser.add_argument("--max-steps", type=int, default=None, help="stop each epoch early (default: never)")
    return parser.parse_args()


def train(args, model, optimizer, loader, epoch):
    model.train()
    loader.sampler.set_epoch(epoch)
    for step, (images, labels) in enumerate(loader):
        if step == args.max_steps:
            break
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        if step % args.log_interval == 0 and rank() == 0:
            print(f"epoch {epoch}  step {step}/{len(loader)}  loss {loss.item():.4f}", flush=True)


@torch.no_grad()
def test(model, loader):
    model.eval()
    totals = torch.zeros(3, dtype=torch.float64)
    for images, labels in loader:
        output = model(images)
        totals[0] += functional.cross_entropy(output, labels, reduction="sum")
        totals[1] += (output.argmax(1) == labels).sum()
        totals[2] += len(labels)
    loss, correct, count = add_up(totals).tolist()
    if rank() == 0:
        print(f"test  loss {loss / count:.4f}  accuracy {100 * correct / count:.2f} %", flush=True)


def loader(x, y, batch_size):
    data = TensorDataset(x, y)
    sampler = DistributedSampler(data, num_replicas=size(), rank=rank())
    return DataLoader(data, batch_size=batch_size, sampler=sampler)


def main():
    args = arguments()
    init()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)

    data = load_dataset(args.dataset, args.data_dir, normalise="standard")
    train_loader = loader(data.train_x, data.train_y, args.batch_size)
    test_loader = loader(data.test_x, data.test_y, 500)

    model = Net(data.shape, data.classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=args.momentum)

    broadcast(model)
    optimizer = hb.DistributedOptimizer(  # changed line 2 of 2
        optimizer, named_parameters=model.named_parameters(), rule=hb.Median(), ledger=args.ledger or None
    )

    for epoch in range(1, args.epochs + 1):
        train(args, model, optimizer, train_loader, epoch)
        test(model, test_loader)
    if rank() == 0:
        print(optimizer.ledger)


if __name__ == "__main__":
    main()
