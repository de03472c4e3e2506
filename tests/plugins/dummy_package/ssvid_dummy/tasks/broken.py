"""A file that cannot be imported. It must be named, and hide nothing else on its shelf."""

from ssvid.tasks import PretextTask, register_task


@register_task("half_registered")
class HalfRegistered(PretextTask):
    """Registered before its file fails."""


import a_package_that_nobody_has  # noqa: E402, F401
