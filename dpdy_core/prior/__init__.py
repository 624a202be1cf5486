"""The RGB-D diffusion prior: loading, pretraining of the bundled model, DreamBooth finetuning, score distillation."""
