"""Recipes so small that they train within seconds: their keys, and one as a command names it."""

SMALL_RECIPE = (
    "tiny,image.width=32,text.width=32,text.layers=1,text.vocabulary=400,fusion.width=32,"
    "fusion.layers=1,fusion.slot_layers=1,reasoning.epochs=0,task.epochs=1"
)
SMALL_KEYS = {
    "image.width": 32,
    "text.width": 32,
    "text.layers": 1,
    "text.vocabulary": 400,
    "fusion.width": 32,
    "fusion.layers": 1,
    "fusion.slot_layers": 1,
    "reasoning.epochs": 1,
    "reasoning.align": 0.5,
    "task.epochs": 2,
    "task.optimiser.average": 0.8,
}
