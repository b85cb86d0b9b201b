SELECT 'p1 has ' || count(*) FROM p1 HAVING count(*) <> 1
UNION ALL SELECT 'p2 has ' || count(*) FROM p2 HAVING count(*) <> 1000;
