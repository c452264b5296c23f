#!/bin/sh
# Who is who in the compose network: a token, an authority and the master's certificate. Made once, kept in a
# volume; `docker compose down -v` forgets them.
set -eu
umask 022
cd /identity
if [ -s ready ]; then
    echo "identity: kept from an earlier start"
    exit 0
fi
openssl rand -hex 32 | tr -d '\n' > token
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
    -keyout ca.key -out ca.pem -subj "/CN=arobust compose authority" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -keyout master.key -out master.csr -subj "/CN=master" 2>/dev/null
printf 'subjectAltName=DNS:master,DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > master.ext
openssl x509 -req -in master.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 \
    -extfile master.ext -out master.pem 2>/dev/null
rm -f master.csr master.ext ca.key ca.srl
# Only the master reads its key; all others need the token and the authority.
chmod 0400 master.key
chown 10001:10001 master.key
sed "s/@TOKEN@/$(cat token)/" /config/master.toml > master.toml
chmod 0400 master.toml
chown 10001:10001 master.toml
echo yes > ready
echo "identity: token, authority and the master's certificate are made"
