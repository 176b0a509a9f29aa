# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
"""
# Adapting to your own images

Weights that learn from noisy images alone, where yours look like no photograph. Here two seconds of learning stand for
the ten minutes that `nlrn.adapt` takes by default; what that gains is in the documentation.
"""

# %%
import numpy as np
from scipy.ndimage import gaussian_filter

import nlrn

SECONDS = 2
random = np.random.default_rng(0)

# %% [markdown]
"""
Fibres, as fluorescence shows them, and four frames of them. Each frame has noise of its own.
"""

# %%
fibres = np.zeros((64, 64))
for _ in range(12):
    place, angle = random.uniform(0, 64, 2), random.uniform(0, 2 * np.pi)
    for _ in range(200):
        angle += random.normal(0, 0.03)
        place = (place + 0.5 * np.array([np.sin(angle), np.cos(angle)])) % 64
        fibres[tuple(place.astype(int))] = 1
fibres = gaussian_filter(fibres, 1.2, mode="wrap")
fibres = 0.05 + 0.9 * fibres / fibres.max()
frames = fibres + random.normal(0, 0.1, (4, 64, 64))

# %% [markdown]
"""
`pairs=True` takes frames of one scene as targets of one another; without it single images are enough. `improved` says
whether the weights are better beyond chance; if not, they are the released ones.
"""

# %%
adaptation = nlrn.adapt(frames, 0.1, axes="TYX", pairs=True, minutes=SECONDS / 60)
print(adaptation.summary)
released = nlrn.denoise(frames, 0.1, axes="TYX", model="nlrn-gray")
adapted = nlrn.denoise(frames, 0.1, axes="TYX", model=adaptation.model)


def error(images: np.ndarray) -> float:
    return float(10 * np.log10(((images - fibres) ** 2).mean()))


print(
    f"error: noisy {error(frames):.2f} dB, released {error(released):.2f} dB, adapted {error(adapted):.2f} dB"
)
# adaptation.save("mine.safetensors") writes the weights, for `nlrn denoise --model mine.safetensors`.
nlrn.compare(released[0], adapted[0], labels=("released", "adapted"))
