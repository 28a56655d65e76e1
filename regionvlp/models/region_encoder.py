"""The region encoder: a ViT that reads detected regions instead of patches (DemoVLP, section 3.1).

Shape letters: B batch, F frames, R region slots of a frame, C feature width, P location width, T = 1 + F*R tokens
with CLS first, D width, E joint width.

In: region features, location vectors, a mask. Out: :class:`Encoded`, CLS as the video, every region as a token.
The paper and its public code differ; each difference is a setting. ``public`` weights need
``loc_dim=6, attention="frame", final_norm=False``; the defaults are the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regionvlp.errors import InputError
from regionvlp.models.attention import Block
from regionvlp.models.encoded import Encoded
from regionvlp.models.settings import RegionEncoderSettings


class RegionEncoder(nn.Module):
    """Regions of a clip to the joint space. Parameter names are those of the public state dict.

    Reads no file: :func:`regionvlp.models.pretrained.load_vit` fills in pre-trained blocks.
    """

    inputs = ("features", "location", "region_mask")

    def __init__(self, settings: RegionEncoderSettings) -> None:
        super().__init__()
        self.settings = settings
        width = settings.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        # One row per token of a frame in the public state dict; only CLS's, row 0, is ever used. Regions carry
        # their place in their location vector instead.
        self.custom_pos_embed = nn.Parameter(torch.zeros(1, 1 + settings.regions, width))
        self.temporal_embed = nn.Parameter(torch.zeros(1, settings.frames, width))
        hidden = int(width * settings.mlp_ratio)
        self.blocks = nn.ModuleList(
            Block(width, settings.heads, hidden, settings.attention, settings.time_attention)
            for _ in range(settings.depth)
        )
        # Exists for the public state dict even where it is not applied, and is frozen there (see Block.norm3).
        self.norm = nn.LayerNorm(width, eps=1e-6).requires_grad_(settings.final_norm)
        self.object_embedding = nn.Linear(settings.feature_width, width)
        self.pos_embedding = nn.Linear(settings.loc_dim, width)
        self.proj = nn.Linear(width, settings.joint_width, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """As the public code does; what is not named here keeps PyTorch's default."""
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.custom_pos_embed, std=0.02)
        if self.settings.frames > 1:
            return  # the public code then leaves the blocks at PyTorch's default too
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor, location: Tensor, region_mask: Tensor) -> Encoded:
        """Encodes a batch of clips.

        Args:
            features: [B, F, R, C] float of any precision. F may be smaller than the model's ``frames``: the first
                rows of the temporal embedding are used then. R may be any number.
            location: [B, F, R, P] float.
            region_mask: [B, F, R] bool, True = real region. A clip without any is encoded from CLS alone.

        Returns:
            pooled [B, E], tokens [B, F*R, E] frame by frame, mask [B, F*R].

        Raises:
            InputError: a shape that the model was not built for, or a mask that is not boolean.
        """
        self._check(features, location, region_mask)
        dtype = self.object_embedding.weight.dtype
        regions_BFRD = self.object_embedding(features.to(dtype)) + self.pos_embedding(location.to(dtype))
        # All regions of a frame share its temporal vector; their order within the frame means nothing.
        regions_BFRD = regions_BFRD + self.temporal_embed[:, : features.shape[1], None]
        cls_11D = self.cls_token + self.custom_pos_embed[:, :1]
        x_BTD = torch.cat([cls_11D.expand(len(features), -1, -1), regions_BFRD.flatten(1, 2)], dim=1)
        for block in self.blocks:
            x_BTD = block(x_BTD, features.shape[1], region_mask)
        if self.settings.final_norm:
            x_BTD = self.norm(x_BTD)
        x_BTE = self.proj(x_BTD)
        return Encoded(x_BTE[:, 0], x_BTE[:, 1:], region_mask.flatten(1))

    def _check(self, features: Tensor, location: Tensor, region_mask: Tensor) -> None:
        settings = self.settings
        if region_mask.dtype is not torch.bool:
            raise InputError(f"region_mask has dtype {region_mask.dtype}", "give a boolean mask, True = real region")
        if features.ndim != 4 or location.shape[:3] != features.shape[:3] or region_mask.shape != features.shape[:3]:
            shapes = f"{tuple(features.shape)}, {tuple(location.shape)}, {tuple(region_mask.shape)}"
            raise InputError(f"features, location, region_mask of shapes {shapes}", "[B,F,R,C], [B,F,R,P], [B,F,R]")
        found = {
            "feature_width": (features.shape[3], settings.feature_width),
            "loc_dim": (location.shape[3], settings.loc_dim),
        }
        for name, (given, built) in found.items():
            if given != built:
                raise InputError(f"{name} of the batch is {given}, of the model {built}", f"make '{name}' agree")
        if features.shape[1] > settings.frames:
            message = f"{features.shape[1]} frames given to a model built for {settings.frames}"
            raise InputError(message, "raise the model's 'frames', or read fewer")
