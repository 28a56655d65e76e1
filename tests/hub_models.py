"""Tiny random models of pictures and sentences, saved by open_clip and transformers in their public layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

SENTENCES = ("a dog jumps into the water", "Two RED cars, on a road!", "snow")
WORDS = ("dog", "water", "red", "cars", "car", "road", "snow", "two", "jumps", "into", "the", "on", "a", "in")
PE_CORE: dict[str, Any] = {
    "embed_dim": 48,
    # The smallest that timm knows by name: 24 x 24 patches, 192 channels, 12 layers.
    "vision_cfg": {"image_size": 384, "timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_pool": "map",
                   "timm_model_pretrained": False, "timm_proj": None},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 1},
    "custom_text": True,
}  # fmt: skip
OPEN_CLIP: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 1},
}


def open_clip_folder(folder: Path, config: dict[str, Any], *, preprocess: dict[str, Any], seed: int = 0) -> Any:
    """Saves a random model by open_clip's own function; returns it as open_clip opens it again."""
    import open_clip
    from open_clip.push_to_hf_hub import save_for_hf

    torch.manual_seed(seed)
    arguments = {key: value for key, value in config.items() if key != "custom_text"}
    kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    model = kind(**json.loads(json.dumps(arguments)))
    _spread(model)
    open_clip.set_model_preprocess_cfg(model, {**preprocess, "size": config["vision_cfg"]["image_size"]})
    save_for_hf(model, _NoTokenizer(), config, str(folder), safe_serialization=True)
    return model.eval()


class _NoTokenizer:
    """open_clip's own vocabulary lies in the library."""

    def save_pretrained(self, folder: Path) -> None:
        pass


def pe_core(folder: Path, seed: int = 0) -> Any:
    """A PE-Core."""
    preprocess = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    return open_clip_folder(folder, PE_CORE, preprocess=preprocess, seed=seed)


def open_clip_vit(folder: Path, seed: int = 0) -> Any:
    """A CLIP in open_clip's layout, with the preprocessing that open_clip has by itself."""
    from open_clip.transform import PreprocessCfg

    return open_clip_folder(folder, OPEN_CLIP, preprocess=vars(PreprocessCfg()), seed=seed)


def clip(folder: Path, seed: int = 0) -> Any:
    """A CLIP in transformers' layout."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    merges, vocabulary = _merges("</w>", ["<|startoftext|>", "<|endoftext|>"])
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(folder)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": len(vocabulary), "max_position_embeddings": 77, "eos_token_id": vocabulary["<|endoftext|>"]}
    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config={**size, **text, "bos_token_id": 0, "pad_token_id": 1}, projection_dim=24,
        vision_config={**size, "image_size": 64, "patch_size": 8},
    )  # fmt: skip
    return _saved(CLIPModel(config), folder)


def siglip(folder: Path, second: bool, seed: int = 0) -> Any:
    """A SigLIP; ``second``: with SigLIP 2's kind of tokenizer (Gemma's), whose weights are of the same architecture."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    length = _gemma_tokenizer(folder) if second else _t5_tokenizer(folder)
    SiglipImageProcessor(size={"height": 64, "width": 64}, resample=2).save_pretrained(folder)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(seed)
    config = SiglipConfig(
        text_config={**size, "vocab_size": length, "max_position_embeddings": 64, "projection_size": 32},
        vision_config={**size, "image_size": 64, "patch_size": 8},
    )
    return _saved(SiglipModel(config), folder)


def frames(count: int = 3, height: int = 90, width: int = 120, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Pictures of coarse noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, height // 30, width // 30, 3), np.uint8)
    return [np.kron(picture, np.ones((30, 30, 1), np.uint8)) for picture in coarse]


def _saved(model: Any, folder: Path) -> Any:
    _spread(model)
    model.save_pretrained(folder, safe_serialization=True)
    return model.eval()


def _spread(model: torch.nn.Module) -> None:
    """Wider weights and biases than at the start of a training, where every picture would look like every other."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim >= 2:
                value.mul_(3)
            elif "bias" in name:
                value.add_(0.1 * torch.randn(value.shape, generator=generator))


def _merges(end: str, special: list[str]) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """A vocabulary of bytes and of the words above, each of which grows letter by letter."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    entries = [*special, *letters, *(letter + end for letter in letters)]
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + end]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            entries.append(pieces[0])
    distinct = list(dict.fromkeys(entries))
    return list(dict.fromkeys(merges)), {entry: number for number, entry in enumerate(distinct)}


def _gemma_tokenizer(folder: Path) -> int:
    """<pad> is 0, <eos> 1, <bos> 2; sentences end with <eos>."""
    from tokenizers import processors
    from transformers import Siglip2Tokenizer

    entries = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581"]
    entries += [chr(code) for code in range(33, 127)]
    merges = []
    for word in WORDS:
        made = word[0]
        for letter in word[1:]:
            merges.append((made, letter))
            made += letter
            entries.append(made)
    vocabulary = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
    tokenizer = Siglip2Tokenizer(
        vocab=vocabulary, merges=list(dict.fromkeys(merges)), padding_side="right", model_max_length=64
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    tokenizer.save_pretrained(folder)
    return len(vocabulary)


def _t5_tokenizer(folder: Path) -> int:
    """T5's kind, as the first SigLIP has: </s> is 1, and pads as well."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    entries = ["<pad>", "</s>", "<unk>", "\u2581", *map(chr, range(33, 127)), *("\u2581" + word for word in WORDS)]
    scored = [(entry, -1.0 - number / 1000) for number, entry in enumerate(entries)]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>", model_max_length=64
    )
    fast.save_pretrained(folder)
    return len(entries)
