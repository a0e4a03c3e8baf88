"""A web application that never waits: it enqueues, answers at once, and tells the result when it is asked for it.

Start a consumer in one terminal, the application in another one, and ask it in a third one::

    geventhuey-consumer examples.flask_app.huey
    flask --app examples.flask_app run
    curl -d "text=to be or not to be" localhost:5000/counts
    curl localhost:5000/counts/ID

The web processes need no gevent, and one connection to Redis each.
"""

import collections

from flask import Flask, request, url_for

from geventhuey import RedisHuey, TaskException

huey = RedisHuey('words')
app = Flask(__name__)


@huey.task()
def count_words(text):
    return dict(collections.Counter(text.split()))


@app.post('/counts')
def begin():
    result = count_words(request.form['text'])
    return {'result': url_for('show', task_id=result.task_id)}, 202


@app.get('/counts/<task_id>')
def show(task_id):
    try:
        words = huey.result(task_id, preserve=True)         # preserve: whoever asks again gets it again
    except TaskException as exc:
        return {'state': 'failed', 'error': str(exc)}, 500
    if words is None:
        return {'state': 'not ready'}, 202
    return {'state': 'ready', 'words': words}
