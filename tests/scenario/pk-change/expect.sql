SELECT 'exchange went wrong: ' || id || ' ' || v FROM t
WHERE (id = 11 AND v <> 'v12') OR (id = 12 AND v <> 'v11') OR (id = 3 AND v <> 'v1') OR id < 0;
