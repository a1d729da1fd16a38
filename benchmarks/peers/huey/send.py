"""Send the commands of a file. Not in `app`: Huey names a task by the module that it was made in."""

from app import enroll
from tuned_common import commands

for command in commands():
    enroll(*command)
