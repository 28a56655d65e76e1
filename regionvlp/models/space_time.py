"""The space-time transformer: a ViT over the patches of a clip's frames (Frozen in Time, Bain et al., ICCV 2021).

Shape letters: B batch, F frames of a clip, M frames that the model was built for, H x W pixels of a frame, P side of a
patch, N = (H/P)*(W/P) patches of a frame, T = 1 + F*N tokens with CLS first and frames one after another, D width,
E joint width.

In: pixels, and which frames are real. Out: :class:`Encoded`, CLS as the clip, every patch as a token. An image is a
clip of one frame. Parameters of Frozen's form are named as in its public state dict, so a timm ViT's fit by name too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from regionvlp.errors import InputError
from regionvlp.models.attention import Attention, Block, TimeSformerBlock
from regionvlp.models.encoded import Encoded
from regionvlp.models.settings import SpaceTimeSettings


class PatchEmbed(nn.Module):
    """Each patch of a frame by one linear layer, as a convolution whose stride is its size (names as in timm)."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, pixels_BFCHW: Tensor) -> Tensor:
        """[B, F, N, D], patches row by row; what does not fill a patch at the right and lower edge is left out."""
        # Not a convolution: as a matrix product the same layer runs at the speed of the others, in any precision.
        side, weight = self.proj.kernel_size[0], self.proj.weight.flatten(1)
        rows, columns = pixels_BFCHW.shape[-2] // side, pixels_BFCHW.shape[-1] // side
        whole = pixels_BFCHW[..., : rows * side, : columns * side]
        patches_BFCYPXP = torch.unflatten(torch.unflatten(whole, -2, (rows, side)), -1, (columns, side))
        patches_BFNV = patches_BFCYPXP.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)
        return functional.linear(patches_BFNV, weight, self.proj.bias)


class SpaceTimeEncoder(nn.Module):
    """Clips of pixels to the joint space.

    Reads no file: :func:`regionvlp.models.pretrained.load_image_vit` fills in a pre-trained image model.

    Attention over time is drawn, or starts without effect, by ``settings.time_init``. ``zeros`` is the public code's
    start, and a saddle: what time adds there is one number for all channels, LayerNorm takes a constant off, and so
    queries, keys, values and the output's weight have no gradient at all in exact arithmetic; training leaves it by
    rounding noise, each machine in a direction of its own. ``zero_proj`` computes the same at the start, with a
    gradient from the first step (spec section 1.5).
    """

    mean: Tensor
    std: Tensor

    inputs = ("pixels", "frame_mask")

    def __init__(self, settings: SpaceTimeSettings) -> None:
        super().__init__()
        self.settings = settings
        width, hidden = settings.width, int(settings.width * settings.mlp_ratio)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + settings.patches, width))
        self.temporal_embed = nn.Parameter(torch.zeros(1, settings.frames, width))
        self.patch_embed = PatchEmbed(settings.patch_size, width)
        self.blocks = nn.ModuleList(self._block(width, hidden) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.proj = nn.Linear(width, settings.joint_width)
        # What the pictures of the first layer's pre-training were normalised by; settings, not weights.
        self.register_buffer("mean", torch.tensor(settings.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(settings.std).view(3, 1, 1), persistent=False)
        self._initialise()

    def _block(self, width: int, hidden: int) -> nn.Module:
        settings = self.settings
        if settings.attention == "timesformer":
            return TimeSformerBlock(width, settings.heads, hidden)
        divided = settings.attention == "frozen"
        return Block(width, settings.heads, hidden, "frame" if divided else "all", time_attention=divided)

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.start_time_attention()

    def start_time_attention(self) -> None:
        """Gives attention over time the start that the settings name, beside the spatial weights that are there now."""
        for block in self.blocks:
            if isinstance(block, TimeSformerBlock):
                block.timeattn.load_state_dict(block.attn.state_dict())
                block.norm3.load_state_dict(block.norm1.state_dict())
                if self.settings.time_init != "random":
                    nn.init.zeros_(block.temporal_fc.weight)
                    nn.init.zeros_(block.temporal_fc.bias)
            elif isinstance(block, Block) and block.timeattn is not None and self.settings.time_init != "random":
                self._start_divided(block, block.timeattn)

    def _start_divided(self, block: Block, timeattn: Attention) -> None:
        nn.init.zeros_(timeattn.proj.bias)
        if self.settings.time_init == "zeros":
            nn.init.ones_(timeattn.proj.weight)
            nn.init.zeros_(timeattn.qkv.weight)
            nn.init.zeros_(timeattn.qkv.bias)
            nn.init.ones_(block.norm3.weight)
            nn.init.zeros_(block.norm3.bias)
        else:
            nn.init.zeros_(timeattn.proj.weight)
            timeattn.qkv.load_state_dict(block.attn.qkv.state_dict())
            block.norm3.load_state_dict(block.norm1.state_dict())

    def forward(self, pixels: Tensor, frame_mask: Tensor | None = None) -> Encoded:
        """Encodes a batch of clips.

        Args:
            pixels: [B, F, 3, H, W], red-green-blue: uint8, which is normalised here, or floating point, which already
                is. F may be smaller than M: Frozen then uses the first rows of the temporal embedding, TimeSformer the
                nearest of all.
            frame_mask: [B, F] bool, True = real frame, real ones first and one at least; None where all are.

        Returns:
            pooled [B, E], tokens [B, F*N, E] frame by frame and row by row, mask [B, F*N].

        Raises:
            InputError: a shape that the model was not built for, or a mask that is not boolean.
        """
        tokens_BTD = self.encode(self.place(self.patches(pixels)), pixels.shape[1], frame_mask)
        x_BTE = self.proj(tokens_BTD)
        shown_BF = torch.ones(pixels.shape[:2], dtype=torch.bool, device=pixels.device)
        mask_BFN = self._of_patches(shown_BF if frame_mask is None else frame_mask)
        return Encoded(x_BTE[:, 0], x_BTE[:, 1:], mask_BFN.flatten(1))

    def patches(self, pixels: Tensor) -> Tensor:
        """[B, F, N, D]: pixels as for :meth:`forward` to patches that know nothing of their place yet."""
        self._check(pixels)
        dtype = self.patch_embed.proj.weight.dtype
        if not pixels.is_floating_point():
            pixels = (pixels.to(dtype) / 255 - self.mean) / self.std
        found: Tensor = self.patch_embed(pixels.to(dtype))
        return found

    def place(self, patches_BFND: Tensor) -> Tensor:
        """[B, T, D]: patches with their place in frame and clip, behind CLS, which has no place in time."""
        patches_BFND = patches_BFND + self.pos_embed[:, None, 1:] + self._in_time(patches_BFND.shape[1])[:, :, None]
        cls_11D = self.cls_token + self.pos_embed[:, :1]
        return torch.cat([cls_11D.expand(len(patches_BFND), -1, -1), patches_BFND.flatten(1, 2)], dim=1)

    def encode(self, tokens_BTD: Tensor, frames: int, frame_mask: Tensor | None = None) -> Tensor:
        """[B, T, D]: placed tokens through all blocks and the final norm, not projected."""
        mask_BFN = None if frame_mask is None else self._of_patches(frame_mask)
        for block in self.blocks:
            tokens_BTD = block(tokens_BTD, frames, mask_BFN)
        normed: Tensor = self.norm(tokens_BTD)
        return normed

    def cls_map(self, pixels: Tensor) -> Tensor:
        """[B, F, H/P, W/P]: how much CLS attends to each patch in the last block's attention over space, of all heads.

        Without its own share, so a clip's map sums to less than 1.

        Raises:
            InputError: TimeSformer's form, where CLS looks at each frame by itself.
        """
        last = self.blocks[-1]
        if not isinstance(last, Block):
            raise InputError("TimeSformer's CLS has no one map of a clip", "use a model with attention 'frozen'")
        frames = pixels.shape[1]
        tokens_BTD = self.place(self.patches(pixels))
        for block in self.blocks[:-1]:
            tokens_BTD = block(tokens_BTD, frames)
        weights_BHT = last.attn.cls_weights(last.norm1(last.seen(tokens_BTD, frames)))
        return torch.unflatten(weights_BHT.mean(1)[:, 1:], 1, (frames, *self.settings.grid))

    def _in_time(self, frames: int) -> Tensor:
        """[1, F, D]"""
        built = self.settings.frames
        if self.settings.attention != "timesformer" or frames == built:
            return self.temporal_embed[:, :frames]
        nearest = torch.arange(frames, device=self.temporal_embed.device) * built // frames
        return self.temporal_embed[:, nearest]

    def _of_patches(self, frame_mask: Tensor) -> Tensor:
        """[B, F, N] bool"""
        if frame_mask.dtype is not torch.bool:
            raise InputError(f"frame_mask has dtype {frame_mask.dtype}", "give a boolean mask, True = real frame")
        return frame_mask[..., None].expand(-1, -1, self.settings.patches)

    def _check(self, pixels: Tensor) -> None:
        settings = self.settings
        if pixels.ndim != 5 or tuple(pixels.shape[2:]) != (3, *settings.size):
            expected = f"[B, F, 3, {settings.size[0]}, {settings.size[1]}]"
            raise InputError(f"pixels of shape {list(pixels.shape)}, expected {expected}", "set model.video.image_size")
        if pixels.shape[1] > settings.frames and settings.attention != "timesformer":
            message = f"{pixels.shape[1]} frames given to a model built for {settings.frames}"
            raise InputError(message, "raise the model's 'frames', or read fewer")
