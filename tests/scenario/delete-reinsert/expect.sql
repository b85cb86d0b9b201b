SELECT 'wrong: ' || t::text FROM t
WHERE id IN (900, 9001) OR (id <= 500 AND (v <> 'new' OR n IS NOT NULL)) OR (id = 901 AND v <> 'b');
