"""What ``geventhuey-consumer app.huey`` imports."""

from work import make_huey

huey = make_huey()
