# Makes the data directory once, sees to role, password and database at every start, then becomes the server.
set -eu
user=$(cat /credentials/username)

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  # Beside the final place, and renamed when whole: a start that was killed leaves nothing that looks finished.
  rm -rf "$PGDATA.new"
  initdb -D "$PGDATA.new" -U postgres --auth-local=peer --auth-host=scram-sha-256 --locale=C.UTF-8 --data-checksums
  echo 'host all all all scram-sha-256' >>"$PGDATA.new/pg_hba.conf"
  mv "$PGDATA.new" "$PGDATA"
fi
chmod 700 "$PGDATA"   # fsGroup opens it to the group, which the server refuses
rm -f "$PGDATA/postmaster.pid"

pg_ctl -D "$PGDATA" -w -o "-c listen_addresses='' -c unix_socket_directories=/var/run/postgresql -c log_min_error_statement=panic" start
psql -h /var/run/postgresql -U postgres -q -v ON_ERROR_STOP=1 -v user="$user" -v database="$DATABASE" <<'SQL'
\set password `cat /credentials/password`
SELECT format('CREATE ROLE %I LOGIN', :'user') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'user') \gexec
ALTER ROLE :"user" PASSWORD :'password';
SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'user')
  WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
SQL
if [ -d /backup-credentials ]; then
  # Reads everything, and restores into databases of its own to prove what it took.
  psql -h /var/run/postgresql -U postgres -q -v ON_ERROR_STOP=1 -v user="$user" \
    -v backup="$(cat /backup-credentials/username)" <<'SQL'
\set password `cat /backup-credentials/password`
SELECT format('CREATE ROLE %I LOGIN CREATEDB BYPASSRLS', :'backup')
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'backup') \gexec
ALTER ROLE :"backup" PASSWORD :'password';
GRANT pg_read_all_data, :"user" TO :"backup";
SQL
fi
pg_ctl -D "$PGDATA" -w -m fast stop

exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql
