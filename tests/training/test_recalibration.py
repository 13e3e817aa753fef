import torch
from torch import nn

from edgeprune.training.recalibration import recalibrate


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2), nn.BatchNorm1d(2))


def test_statistics_are_means_over_the_batches() -> None:
    net = network()
    net[1].running_mean.fill_(77.0)
    net[1].momentum = 0.3
    first, second = torch.randn(10, 3), 5 + 2 * torch.randn(10, 3)
    recalibrate(net, [first, second])
    with torch.no_grad():
        hidden = [net[0](x) for x in (first, second)]
        torch.testing.assert_close(net[1].running_mean, (hidden[0].mean(0) + hidden[1].mean(0)) / 2)
        torch.testing.assert_close(net[1].running_var, (hidden[0].var(0) + hidden[1].var(0)) / 2)
        # The second norm sees what the first makes of each batch, with no dropout between.
        eps = net[1].eps
        normed = [(h - h.mean(0)) / torch.sqrt(h.var(0, correction=0) + eps) for h in hidden]
        last = [net[3](h * net[1].weight + net[1].bias) for h in normed]
        torch.testing.assert_close(net[4].running_mean, (last[0].mean(0) + last[1].mean(0)) / 2)
    assert net[1].momentum == 0.3
    assert not any(module.training for module in net.modules())


def test_weights_stay() -> None:
    net = network()
    recalibrate(net, [torch.randn(10, 3)])
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), network().parameters(), strict=True))


def test_without_batch_norm_nothing_is_read() -> None:
    def unread():  # type: ignore[no-untyped-def]
        raise AssertionError("read")
        yield

    for net in (nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)):
        recalibrate(net, unread())
