-- Rows by the thousand: inserted, indexed, selected, changed, deleted. Numbers come from a fixed generator.
PRAGMA journal_mode = MEMORY;
PRAGMA cache_size = -16000;
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL);
CREATE TABLE sale (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL, price INTEGER NOT NULL, note TEXT NOT NULL);
BEGIN;
WITH RECURSIVE seq(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM seq WHERE n < 20000)
INSERT INTO customer SELECT n, printf('customer %08x', n * 2654435761 % 4294967296), 'city ' || (n * 7919 % 311) FROM seq;
WITH RECURSIVE seq(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM seq WHERE n < 200000)
INSERT INTO sale
SELECT n, 1 + n * 48271 % 20000, n * 1103515245 % 100003, printf('%.*c%d', n % 60, 'x', n * 69069 % 65537) FROM seq;
COMMIT;
CREATE INDEX sale_customer ON sale (customer);
CREATE INDEX sale_price ON sale (price, note);
CREATE INDEX customer_city ON customer (city);
ANALYZE;
SELECT count(*), sum(price), min(note), max(length(note)) FROM sale;
SELECT city, count(*), sum(price) FROM sale JOIN customer ON customer.id = sale.customer GROUP BY city ORDER BY 3 DESC, 1 LIMIT 40;
SELECT substr(note, -3), count(*) AS nr FROM sale GROUP BY 1 ORDER BY nr DESC, 1 LIMIT 25;
SELECT id, price, rank() OVER (PARTITION BY customer ORDER BY price DESC, id) AS place FROM sale ORDER BY place DESC, id LIMIT 30;
SELECT length(group_concat(note, ',')) FROM sale;
SELECT count(DISTINCT note || price), count(DISTINCT customer) FROM sale;
UPDATE sale SET note = upper(note) || price WHERE price % 3 = 0;
UPDATE customer SET name = replace(name, 'customer', 'client') WHERE city LIKE '%1%';
DELETE FROM sale WHERE price % 7 = 0;
SELECT name, total FROM (SELECT customer.name AS name, total(price) AS total FROM customer LEFT JOIN sale ON customer.id = sale.customer GROUP BY customer.id) ORDER BY total DESC, name LIMIT 40;
VACUUM;
SELECT count(*), sum(price), sum(length(note)) FROM sale;
PRAGMA integrity_check;
