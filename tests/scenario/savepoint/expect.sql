SELECT 'a rolled back row is there: ' || id FROM t WHERE id IN (5001, 5002) OR v < 0;
