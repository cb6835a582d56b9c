-- Accounts of the chain as the services know them, and a ledger whose entries are only ever added.
CREATE SCHEMA platform;

CREATE TABLE platform.accounts (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  address text NOT NULL UNIQUE CHECK (address <> ''),
  created timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE platform.ledger (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account bigint NOT NULL REFERENCES platform.accounts (id),
  amount numeric(38, 0) NOT NULL CHECK (amount <> 0),
  block bigint NOT NULL CHECK (block >= 0),
  entered timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ledger_account ON platform.ledger (account, entered);

CREATE FUNCTION platform.ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'entries of the ledger are never changed';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON platform.ledger
  FOR EACH ROW EXECUTE FUNCTION platform.ledger_is_append_only();
