"""Writes the files of this folder: a network of torch, an adapter that PEFT has saved, and the results of PEFT.

    pip install torch peft safetensors && python make.py
"""

import pathlib

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

here = pathlib.Path(__file__).parent
torch.manual_seed(15)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up = torch.nn.Linear(16, 48)
        self.down = torch.nn.Linear(48, 16, bias=False)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


net = Net().eval()
save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, here / "base.safetensors")
x = torch.randn(3, 5, 16)
results = {"x": x, "base": net(x).detach()}
for name, options in {
    "plain": {"r": 4, "lora_alpha": 8},
    "patterns": {"r": 4, "lora_alpha": 8, "use_rslora": True, "rank_pattern": {"up": 2}, "alpha_pattern": {"down": 3}},
}.items():
    config = LoraConfig(target_modules=["up", "down"], **options)
    tuned = get_peft_model(Net(), config)
    tuned.base_model.model.load_state_dict(net.state_dict(), strict=False)
    for key, value in net.state_dict().items():
        layer, part = key.split(".")
        getattr(getattr(tuned.base_model.model, layer).base_layer, part).data.copy_(value)
    for key, parameter in tuned.named_parameters():
        if "lora_" in key:
            parameter.data.normal_(0.0, 0.3)
    tuned.eval()
    tuned.save_pretrained(here / name)
    (here / name / "README.md").unlink(missing_ok=True)
    results[name] = tuned(x).detach()
    results[f"{name}.merged"] = tuned.merge_and_unload()(x).detach()
save_file({name: tensor.contiguous() for name, tensor in results.items()}, here / "results.safetensors")
