"""moto's S3 server on a free port, with one access key whose signatures it verifies, and a log of what it was asked.

Prints one line of JSON when it serves: {"port", "access_key_id", "secret_access_key"}. For each line on its standard
input it prints one line of JSON: the requests since the line before. It ends when its standard input does, so that it
never outlives the test that started it, however that ends.

Usage: moto_s3.py BUCKET
"""

import json
import logging
import sys
import threading

import boto3
from moto import settings
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


class Logged:
    """An application that notes each request before the first byte of its answer leaves."""

    def __init__(self, application):
        self.application = application
        self.lock = threading.Lock()
        self.requests = []

    def __call__(self, environ, start_response):
        def note(status, headers, exc_info=None):
            request = {
                "method": environ["REQUEST_METHOD"],
                "path": environ["PATH_INFO"],
                "query": environ["QUERY_STRING"],
                "range": environ.get("HTTP_RANGE"),
                "if_match": environ.get("HTTP_IF_MATCH"),
                "authorization": environ.get("HTTP_AUTHORIZATION", "").split(" ")[0],
                "status": int(status.split(" ")[0]),
            }
            with self.lock:
                self.requests.append(request)
            return start_response(status, headers, exc_info)

        return self.application(environ, note)

    def take(self):
        with self.lock:
            taken, self.requests = self.requests, []
        return taken


def main(bucket):
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    logged = Logged(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, logged, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]

    def client(service):
        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="setup",
            aws_secret_access_key="setup",
        )

    client("s3").create_bucket(Bucket=bucket)
    iam = client("iam")
    iam.create_user(UserName="reader")
    iam.put_user_policy(UserName="reader", PolicyName="lake", PolicyDocument=json.dumps(POLICY))
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    # From here on every request must carry a right signature of a known key.
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    logged.take()
    ready = {"port": port, "access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}
    print(json.dumps(ready), flush=True)
    for _ in sys.stdin:
        print(json.dumps(logged.take()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
