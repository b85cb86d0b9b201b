SELECT 'torn: ' || count(*) FROM t WHERE v <> 1 HAVING count(*) > 0;
