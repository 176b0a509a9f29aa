# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
"""
# Photographs

Noise of three kinds, what nlrn finds, and what it does. scikit-image's `astronaut` stands for your photograph:
`nlrn.denoise("photo.jpg", output="clean.jpg")` does the same with a file.
"""

# %%
import io

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data
from skimage.metrics import peak_signal_noise_ratio as psnr

import nlrn

clean = data.astronaut()[0:64, 176:256]
random = np.random.default_rng(0)


def with_noise(noise: np.ndarray) -> np.ndarray:
    return np.clip(clean + noise, 0, 255).round().astype(np.uint8)


# %% [markdown]
"""
White noise differs freely from pixel to pixel. The estimate finds its level, and that it is white, from the picture.
"""

# %%
white = with_noise(random.normal(0, 15, clean.shape))
estimate = nlrn.estimate_noise(white)
print(f"sigma {estimate.sigma:.1f}, whiteness {estimate.whiteness:.2f}")
restored = nlrn.denoise(white)
print(f"white: {psnr(clean, white):.1f} dB, restored {psnr(clean, restored):.1f} dB")
nlrn.compare(white, restored)

# %% [markdown]
"""
Grain is shared by neighbours. nlrn takes the model for photographs; `strength=` keeps a part of the grain, here of luma
and not of colour.
"""

# %%
soft = gaussian_filter(random.normal(0, 1, clean.shape), (0.8, 0.8, 0))
grain = with_noise(12 * soft / soft.std())
without_grain = nlrn.denoise(grain)
some_grain = nlrn.denoise(grain, strength=(0.6, 1))
print(f"grain: {psnr(clean, grain):.1f} dB, restored {psnr(clean, without_grain):.1f} dB")
nlrn.compare(grain, some_grain, labels=("grain", "60% of it removed"))

# %% [markdown]
"""
Rows that are shifted as a whole look like structure to a model for white noise. `decorrelate=` removes noise by its
spectrum.
"""

# %%
rows = with_noise(random.normal(0, 10, (len(clean), 1, 1)) + random.normal(0, 4, clean.shape))
without_rows = nlrn.denoise(rows, decorrelate=True)
print(f"rows: {psnr(clean, rows):.1f} dB, restored {psnr(clean, without_rows):.1f} dB")
nlrn.compare(rows, without_rows)

# %% [markdown]
"""
Old pictures are compressed, too. `restore` measures noise and compression, and does what helps.
"""

# %%
file = io.BytesIO()
Image.fromarray(clean).save(file, "JPEG", quality=15)
old = np.asarray(Image.open(file))
better = nlrn.restore(old)
print(f"JPEG: {psnr(clean, old):.1f} dB, restored {psnr(clean, better):.1f} dB")
nlrn.compare(old, better)
