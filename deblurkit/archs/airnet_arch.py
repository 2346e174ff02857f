"""AirNet: one network for several unknown degradations, told apart by a contrastive encoder.

Li, Liu, Hu, Wu, Lv, Peng: All-In-One Image Restoration for Unknown Corruption, CVPR 2022. The form is that of
XLearning-SCU/2022-CVPR-AirNet. The encoder is trained by momentum contrast (He et al., MoCo, CVPR 2020,
arXiv 1911.05722): two crops of one picture are alike, pictures seen earlier are not.
"""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from deblurkit.archs.blocks import conv_norm
from deblurkit.contract import Capabilities, FrameContract
from deblurkit.network import Network
from deblurkit.ops.deform_conv_modules import DeformConv2d, split_offset_mask
from deblurkit.registry import ARCH_REGISTRY

_SLOPE = 0.1
#: Keys that the queue holds for each sample of a batch.
_QUEUE_PER_SAMPLE = 256


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _SLOPE, inplace=True)


class _ResBlock(nn.Module):
    """Two convolutions and, also where nothing changes its shape, a 1x1 convolution beside them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(_SLOPE, inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        conv1, norm1, act, conv2, norm2 = self.backbone
        main = conv_norm(act(conv_norm(x, conv1, norm1)), conv2, norm2)
        return _leaky(main + conv_norm(x, *self.shortcut))


class _Encoder(nn.Module):
    """A picture to its degradation map, and to one vector that is compared with those of other pictures."""

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.E_pre = _ResBlock(3, features, stride=1)
        self.E = nn.Sequential(
            _ResBlock(features, 2 * features, stride=2),
            _ResBlock(2 * features, dim, stride=2),
            nn.AdaptiveAvgPool2d(1),
        )
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.LeakyReLU(_SLOPE), nn.Linear(dim, dim))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The map `(B, features, H, W)` and the vector `(B, dim)`, of length one and in float32."""
        degradation = self.E_pre(x)
        vector = self.mlp(self.E(degradation).flatten(1))
        return degradation, F.normalize(vector.float(), dim=1)


class _MomentumContrast(nn.Module):
    """MoCo: the encoder that learns, its slow follower, and a queue of what the follower said of earlier pictures."""

    queue: Tensor
    queue_ptr: Tensor

    def __init__(self, features: int, dim: int, length: int, momentum: float, temperature: float) -> None:
        super().__init__()
        self.momentum, self.temperature = momentum, temperature
        self.encoder_q = _Encoder(features, dim)
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(dim, length), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """The query's degradation map, and the logits `(B, 1 + length)`: of its own key, then of the queue."""
        degradation, q = self.encoder_q(query)
        with torch.no_grad():
            self._follow()
            _, k = self.encoder_k(key)
        with torch.autocast(q.device.type, enabled=False):
            logits = torch.cat(((q * k).sum(1, keepdim=True), q @ self.queue.clone()), dim=1) / self.temperature
        self._remember(k)
        return degradation, logits

    @torch.no_grad()
    def _follow(self) -> None:
        # parameters only: the follower's batch norms have statistics of their own
        torch._foreach_lerp_(list(self.encoder_k.parameters()), list(self.encoder_q.parameters()), 1 - self.momentum)

    @torch.no_grad()
    def _remember(self, keys: Tensor) -> None:
        """Put the keys of all processes in the place of the oldest ones, so that all have the same queue."""
        keys = _of_all_processes(keys)
        count, length = len(keys), self.queue.shape[1]
        if length % count:
            raise ValueError(
                f"AirNet: a queue of {length} keys takes batches (of all processes together) that divide it, not "
                f"{count}: its batch_size should be that of the training"
            )
        # without reading the pointer, which would make a GPU wait
        places = (self.queue_ptr + torch.arange(count, device=keys.device)) % length
        self.queue.index_copy_(1, places, keys.T.to(self.queue.dtype))
        self.queue_ptr.add_(count).remainder_(length)


def _of_all_processes(keys: Tensor) -> Tensor:
    """The rows of every process in rank order, `(processes * B, C)`."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return keys
    gathered = [torch.empty_like(keys) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, keys.contiguous())
    return torch.cat(gathered)


class _DegradationEncoder(nn.Module):
    """CBDE, a shell around the contrast that state dicts know."""

    def __init__(self, features: int, dim: int, length: int, momentum: float, temperature: float) -> None:
        super().__init__()
        self.E = _MomentumContrast(features, dim, length, momentum, temperature)

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return self.E(query, key)


class _GuidedDeformConv(DeformConv2d):
    """Deformable convolution whose offsets are found in the features and the degradation map together."""

    def __init__(self, features: int) -> None:
        super().__init__(features, features, padding=1, bias=False)
        self.conv_offset_mask = nn.Conv2d(2 * features, 27, 3, padding=1)
        nn.init.zeros_(self.conv_offset_mask.weight)
        assert self.conv_offset_mask.bias is not None
        nn.init.zeros_(self.conv_offset_mask.bias)

    def forward(self, x: Tensor, degradation: Tensor) -> Tensor:  # type: ignore[override]
        raw = self.conv_offset_mask(torch.cat((x, degradation), dim=1))
        return super().forward(x, *split_offset_mask(raw))


class _FeatureTransform(nn.Module):
    """SFT: features times one map plus another, both of the degradation."""

    def __init__(self, features: int) -> None:
        super().__init__()

        def maps() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(features, features, 1, bias=False),
                nn.LeakyReLU(_SLOPE, inplace=True),
                nn.Conv2d(features, features, 1, bias=False),
            )

        self.conv_gamma = maps()
        self.conv_beta = maps()

    def forward(self, x: Tensor, degradation: Tensor) -> Tensor:
        return torch.addcmul(self.conv_beta(degradation), x, self.conv_gamma(degradation))


class _GuidedModule(nn.Module):
    """DGM."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.dcn = _GuidedDeformConv(features)
        self.sft = _FeatureTransform(features)

    def forward(self, x: Tensor, degradation: Tensor) -> Tensor:
        return x + self.dcn(x, degradation) + self.sft(x, degradation)


class _GuidedBlock(nn.Module):
    """DGB: two guided modules, each with a convolution after it."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.dgm1 = _GuidedModule(features)
        self.dgm2 = _GuidedModule(features)
        self.conv1 = _conv(features, features)
        self.conv2 = _conv(features, features)

    def forward(self, x: Tensor, degradation: Tensor) -> Tensor:
        y = _leaky(self.conv1(_leaky(self.dgm1(x, degradation))))
        return self.conv2(_leaky(self.dgm2(y, degradation))) + x


class _GuidedGroup(nn.Module):
    """DGG: guided blocks and a convolution, with a skip."""

    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        self.body = nn.ModuleList([*(_GuidedBlock(features) for _ in range(blocks)), _conv(features, features)])

    def forward(self, x: Tensor, degradation: Tensor) -> Tensor:
        *blocks, last = self.body
        y = x
        for block in blocks:
            y = block(y, degradation)
        return last(y) + x


class _GuidedRestorer(nn.Module):
    """DGRN: a degraded picture and its degradation map to the restored picture, without a residual over all."""

    def __init__(self, features: int, groups: int, blocks: int) -> None:
        super().__init__()
        self.head = nn.Sequential(_conv(3, features))
        self.body = nn.ModuleList([*(_GuidedGroup(features, blocks) for _ in range(groups)), _conv(features, features)])
        self.tail = nn.Sequential(_conv(features, 3))

    def forward(self, x: Tensor, degradation: Tensor) -> Tensor:
        shallow = self.head(x)
        *groups, last = self.body
        y = shallow
        for group in groups:
            y = group(y, degradation)
        return self.tail(last(y) + shallow)


@ARCH_REGISTRY.register()
class AirNet(Network):
    """AirNet: `(B, 3, H, W)` RGB in [0, 1] to the same, of any size.

    `run` restores and needs one picture. `forward` in training takes two views of each picture and also compares them;
    `AirNetModel` trains with it.

    Args:
        batch_size: samples in a training batch, of all processes together; the queue holds 256 keys for each. Released
            weights have 5 (all-in-one), 3 (noise only) or 1.
        dim: length of the vectors that are compared.
        n_groups, n_blocks: groups of guided blocks, and blocks in each.
        n_feats: width of the restoring part and of the degradation map. The default has 8,930,313 parameters.
        momentum: share of the follower that is kept at a step. temperature: divides the similarities.

    Raises:
        ValueError: a number is below 1.
    """

    paper = "All-In-One Image Restoration for Unknown Corruption, CVPR 2022"
    year = 2022
    check_args = {"batch_size": 2, "dim": 8, "n_groups": 1, "n_blocks": 2, "n_feats": 8}  # noqa: RUF012

    def __init__(
        self,
        batch_size: int = 5,
        dim: int = 256,
        n_groups: int = 5,
        n_blocks: int = 5,
        n_feats: int = 64,
        momentum: float = 0.999,
        temperature: float = 0.07,
    ) -> None:
        if min(batch_size, dim, n_groups, n_blocks, n_feats) < 1:
            raise ValueError("AirNet: batch_size, dim, n_groups, n_blocks and n_feats start at 1")
        super().__init__(
            FrameContract(
                kind="image",
                halo="data",  # deformable convolutions
                capabilities=Capabilities(bf16=True, fp16=True),
                licence="none stated (XLearning-SCU/2022-CVPR-AirNet)",
            )
        )
        self.R = _GuidedRestorer(n_feats, n_groups, n_blocks)
        self.E = _DegradationEncoder(n_feats, dim, _QUEUE_PER_SAMPLE * batch_size, momentum, temperature)
        head = "E.E.encoder_q."
        self.dead_parameters = {  # type: ignore[misc]
            name: "trained by AirNetModel's contrastive loss; has no part in restoring"
            for name, _ in self.named_parameters()
            if name.startswith((f"{head}E.", f"{head}mlp."))
        }

    def forward(self, x_query: Tensor, x_key: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Restore, and in training compare.

        Args:
            x_query: `(B, 3, H, W)`. x_key: other views of the same pictures; not looked at in evaluation.

        Returns:
            in evaluation restored pictures; in training these, logits `(B, 1 + 256 * batch_size)` of which the first
            should be the largest, and labels (zeros). None of them clamped.

        Raises:
            ValueError: there is no x_key in training, or a batch that the length of the queue is no multiple of.
        """
        if not self.training:
            return self.run(x_query)["restored"]
        if x_key is None:
            raise ValueError("AirNet in training compares two views: forward(x_query, x_key)")
        outputs = self.compare(x_query, x_key, restore=True)
        return outputs["restored"], outputs["logits"], x_query.new_zeros(len(x_query), dtype=torch.long)

    def compare(self, query: Tensor, key: Tensor, restore: bool) -> dict[str, Tensor]:
        """A step of the contrast: the follower moves, and the queue takes the new keys.

        Args:
            query, key: two views of the same pictures, `(B, 3, H, W)`. restore: also restore the first.

        Returns:
            "logits" as `forward` gives them, and "restored".
        """
        degradation, logits = self.E(query, key)
        return {"logits": logits, **({"restored": self.R(query, degradation)} if restore else {})}

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """See `Network.run`."""
        if x.ndim == 5:
            return super().run(x)
        return {"restored": self.R(x, self.E.E.encoder_q.E_pre(x))}
