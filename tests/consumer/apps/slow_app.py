"""An application that takes its time to be imported."""

import time

from work import make_huey, note

note('importing', 0)
time.sleep(float(__import__('os').environ.get('WORK_IMPORT_SECONDS', '0')))
huey = make_huey()
