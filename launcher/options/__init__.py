"""Every option of a run. A table of contents: `launcher.options.launch_conf` has them, `fields` says what an option is, `checks` what is allowed."""

from launcher.options.fields import Form, Group, Option
from launcher.options.launch_conf import LaunchConf, option_fields, options_of

__all__ = ["Form", "Group", "LaunchConf", "Option", "option_fields", "options_of"]
