"""The models as PyTorch modules: those of `minilm.py` and `random_models.py`."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .safetensors import read_safetensors


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output, self.heads = nn.Linear(width, width), heads

    def forward(self, x, mask=None):
        batch, length, width = x.shape

        def by_head(part):
            return part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

        parts = [by_head(part(x)) for part in (self.query, self.key, self.value)]
        attended = functional.scaled_dot_product_attention(*parts, attn_mask=mask)
        return self.output(attended.transpose(1, 2).reshape(batch, length, width))


class TransformerBlock(nn.Module):
    def __init__(self, width, heads, epsilon=1e-5, has_last_norm=False):
        super().__init__()
        self.attention, self.norm = Attention(width, heads), nn.LayerNorm(width, epsilon)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.last = nn.LayerNorm(width, epsilon) if has_last_norm else nn.Identity()

    def forward(self, x, mask=None):
        hidden = self.norm(self.attention(x, mask) + x)
        return self.last(self.outer(functional.gelu(self.inner(hidden))) + hidden)


class MiniLm(nn.Module):
    """BERT, the mean over the tokens that are not padding, and a division by the length."""

    def __init__(self, weights, heads=12, layers=6, epsilon=1e-12):
        super().__init__()
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in read_safetensors(weights).items()}

        def table(name):
            return nn.Embedding.from_pretrained(tensors[f"embeddings.{name}_embeddings.weight"])

        self.words, self.positions, self.types = table("word"), table("position"), table("token_type")
        width = self.words.weight.shape[1]
        self.norm = nn.LayerNorm(width, epsilon)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, epsilon, True) for _ in range(layers))

        def take(module, name):
            parts = {part: tensors[f"{name}.{part}"] for part in ("weight", "bias")}
            module.load_state_dict(parts)

        take(self.norm, "embeddings.LayerNorm")
        for number, block in enumerate(self.blocks):
            name = f"encoder.layer.{number}"
            for part in ("query", "key", "value"):
                take(getattr(block.attention, part), f"{name}.attention.self.{part}")
            take(block.attention.output, f"{name}.attention.output.dense")
            take(block.norm, f"{name}.attention.output.LayerNorm")
            take(block.inner, f"{name}.intermediate.dense")
            take(block.outer, f"{name}.output.dense")
            take(block.last, f"{name}.output.LayerNorm")

    def forward(self, input_ids, attention_mask):
        positions = self.positions.weight[: input_ids.shape[1]]
        x = self.norm(self.words(input_ids) + self.types.weight[0] + positions)
        mask = attention_mask.bool()[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        share = attention_mask.unsqueeze(2).float()
        return functional.normalize((x * share).sum(1) / share.sum(1))


class Blocks(nn.Module):
    def __init__(self, width, layers, heads):
        super().__init__()
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(layers)))

    def forward(self, x):
        return self.blocks(x)


class Stack(nn.Module):
    def __init__(self, width, layers):
        super().__init__()
        self.layers = nn.Sequential(*(part for _ in range(layers) for part in (nn.Linear(width, width), nn.ReLU())))

    def forward(self, x):
        return self.layers(x)


class ResidualBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        stride = 1 if inputs == outputs else 2

        def normed(inputs, kernel, stride):
            convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(outputs))

        self.first, self.second = normed(inputs, 3, stride), normed(outputs, 3, 1)
        self.shortcut = nn.Identity() if inputs == outputs else normed(inputs, 1, stride)

    def forward(self, x):
        inner = self.second(functional.relu(self.first(x)))
        return functional.relu(inner + self.shortcut(x))


class ResNet18(nn.Module):
    def __init__(self, size=224, classes=1000):
        super().__init__()
        widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
        stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        blocks = [ResidualBlock(*pair) for pair in zip(widths, widths[1:])]
        self.layers = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))

    def forward(self, x):
        return self.layers(x)


class Detector(nn.Module):
    def __init__(self, samples=640, width=128):
        super().__init__()
        self.frequencies = nn.Conv1d(1, 258, 256, 128, bias=False)
        layers = ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, width, 1))
        convolutions = (nn.Conv1d(inputs, outputs, 3, stride, 1) for inputs, outputs, stride in layers)
        self.encoder = nn.Sequential(*(part for layer in convolutions for part in (layer, nn.ReLU())))
        self.lstm, self.decoder = nn.LSTM(width, width), nn.Conv1d(width, 1, 1)

    def forward(self, samples, cell, hidden):
        parts = self.frequencies(samples.unsqueeze(1)).chunk(2, 1)
        x = self.encoder((parts[0].square() + parts[1].square()).sqrt())
        x, _ = self.lstm(x.permute(2, 0, 1), (hidden.unsqueeze(0), cell.unsqueeze(0)))
        return torch.sigmoid(self.decoder(functional.relu(x.permute(1, 2, 0)))).mean(2)


KINDS = {"minilm": MiniLm, "stack": Stack, "blocks": Blocks, "resnet18": ResNet18, "detector": Detector}
