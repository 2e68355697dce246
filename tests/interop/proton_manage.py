"""Asks $management as a client that knows nothing of this server would, with Apache Qpid Proton.

Prints one JSON line for each request: the status and the body of the reply.
"""

import json
import sys

from proton import Message
from proton.utils import BlockingConnection, SyncRequestResponse

url = sys.argv[1]


def plain(value):
    """Numbers and texts of AMQP types as those of JSON."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (str, bool, int, float)) or value is None:
        return value
    return str(value)


connection = BlockingConnection(url, timeout=30)
client = SyncRequestResponse(connection, "$management")
for line in sys.stdin:
    asked = json.loads(line)
    reply = client.call(Message(properties=asked["properties"], body=asked.get("body")))
    print(
        json.dumps(
            {
                "status": plain(reply.properties["statusCode"]),
                "text": plain(reply.properties["statusDescription"]),
                "body": plain(reply.body),
            }
        )
    )
    sys.stdout.flush()
connection.close()
