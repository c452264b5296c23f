#!/bin/sh
# Who is who in the compose network: a token, an authority and the master's certificate. Made once, kept in
# volumes; `docker compose down -v` forgets them. Also gives the Collector's queue to the Collector's user.
set -eu
umask 022
if [ "$(stat -c %u /queue)" != 10001 ]; then
    chmod 0700 /queue
    chown 10001:10001 /queue
fi
cd /identity
if [ -s ready ] && [ -s /master-identity/master.toml ]; then
    echo "identity: kept from an earlier start"
    exit 0
fi
rm -f ready master.key master.toml /master-identity/*
openssl rand -hex 32 | tr -d '\n' > token
# The authority's key signs one certificate and is never in a volume.
work=$(mktemp -d)
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
    -keyout "$work/ca.key" -out ca.pem -subj "/CN=arobust compose authority" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -keyout /master-identity/master.key -out "$work/master.csr" -subj "/CN=master" 2>/dev/null
printf 'subjectAltName=DNS:master,DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > "$work/master.ext"
openssl x509 -req -in "$work/master.csr" -CA ca.pem -CAkey "$work/ca.key" -CAcreateserial \
    -CAserial "$work/ca.srl" -days 3650 -extfile "$work/master.ext" -out master.pem 2>/dev/null
rm -rf "$work"
# Only the master has the volume with its key; all others need the token and the authority.
sed "s/@TOKEN@/$(cat token)/" /config/master.toml > /master-identity/master.toml
for file in /master-identity/master.key /master-identity/master.toml; do
    chmod 0400 "$file"
    chown 10001:10001 "$file"
done
echo yes > ready
echo "identity: token, authority and the master's certificate are made"
