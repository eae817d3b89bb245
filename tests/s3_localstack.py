"""LocalStack's S3, a server that has nothing in common with moto: `python s3_localstack.py PORT`, to be named in
`SCANRNN_TEST_S3`, see `s3_server.py`.

To be run by a Python (3.13 or newer) of its own, which needs `pip install "localstack-core[base-runtime]" "cbor2<6"`;
nothing of this package is there. LocalStack's own start is gone around: it makes a certificate by what `cryptography`
does not offer any more.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Serve until the process ends."""
    os.environ |= {"SERVICES": "s3", "STRICT_SERVICE_LOADING": "1", "DISABLE_EVENTS": "1"}
    from localstack.aws.app import LocalstackAwsGateway
    from localstack.services.plugins import SERVICE_PLUGINS
    from rolo.gateway.wsgi import WsgiGateway
    from werkzeug.serving import make_server

    app = WsgiGateway(LocalstackAwsGateway(SERVICE_PLUGINS))
    make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()


if __name__ == "__main__":
    main()
